//! Pages of lists: the parameters, the body, and the cursors.

use super::{Found, list};
use crate::{causality::Freshness, extract::Params, problem::Problem};
use axum::response::Response;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use projections::Page;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Items of a page, unless the caller sets a limit.
const LIMIT: u32 = 50;
/// The most items of a page.
const LIMIT_MAX: u32 = 200;
/// The most bytes of a cursor. The cursor of a search contains its words.
pub(crate) const CURSOR_BYTES: usize = 4096;

/// The query parameters of every list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the parameters in the OpenAPI document")]
pub struct PageParams {
    /// The most items of the page, 1 to 200; 50 if absent
    limit: Option<u32>,
    /// The `next_cursor` of the page before
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListBody<B> {
    /// The items.
    pub items: Vec<B>,
    /// The cursor of the next page; null on the last page.
    #[schema(nullable)]
    pub next_cursor: Option<String>,
}

/// The page of a list that a request asks for. `C` is what its cursors contain.
pub struct PageRequest<C> {
    cursors: Cursors,
    /// Where the page begins; `None` for the first page.
    pub after: Option<C>,
    /// The most items of the page.
    pub limit: u32,
}

impl<C: Serialize + DeserializeOwned> PageRequest<C> {
    /// Reads `cursor` and `limit`, for the list of this name with these filters. They are the last
    /// parameters: any other is refused.
    ///
    /// # Errors
    /// `invalid-parameter`.
    pub fn of(
        name: &str,
        filters: &impl std::fmt::Debug,
        mut params: Params,
    ) -> Result<Self, Problem> {
        let cursors = Cursors::of(name, filters);
        let after = cursors.take(&mut params)?;
        let limit = limit(&mut params)?;
        params.end()?;
        Ok(Self { cursors, after, limit })
    }

    /// The page of rows that were read with a limit of one more than this page has.
    pub fn cut<T>(&self, mut rows: Vec<T>, cursor: impl FnOnce(&T) -> C) -> Page<T, C> {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next = rows.last().filter(|_| more).map(cursor);
        Page { items: rows, next }
    }

    /// The body with a page of a read model. `at` makes its cursor into one for clients, `show`
    /// makes its rows into items.
    ///
    /// # Errors
    /// Never for the cursors of this crate, which all serialise.
    pub fn body<T, N, B>(
        &self,
        page: Page<T, N>,
        at: impl FnOnce(N) -> C,
        show: impl FnMut(T) -> B,
    ) -> Result<ListBody<B>, Problem> {
        let next_cursor = page.next.map(|next| self.cursors.give(at(next))).transpose()?;
        Ok(ListBody { items: page.items.into_iter().map(show).collect(), next_cursor })
    }

    /// The answer with the [`body`](Self::body) of a page.
    ///
    /// # Errors
    /// As [`body`](Self::body).
    pub fn answer<T, N, B: Serialize>(
        &self,
        freshness: &Freshness,
        found: Found<Page<T, N>>,
        at: impl FnOnce(N) -> C,
        show: impl FnMut(T) -> B,
    ) -> Result<Response, Problem> {
        let value = self.body(found.value, at, show)?;
        Ok(list(freshness, Found { value, position: found.position }))
    }
}

/// The parameter `limit`: how many items a page has.
///
/// # Errors
/// `invalid-parameter`.
pub fn limit(params: &mut Params) -> Result<u32, Problem> {
    let expected = format!("a number from 1 to {LIMIT_MAX}");
    let limit = params.read("limit", &expected)?.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid_parameter("limit", &format!("must be {expected}")))
}

/// A cursor as clients get it: where the next page begins, and of which list.
#[derive(Serialize, Deserialize)]
struct ListCursor<C> {
    list: u64,
    at: C,
}

/// Writes and reads the cursors of one list: one path with one set of filters.
pub struct Cursors(u64);

impl Cursors {
    /// For the list of this name with these filters.
    pub fn of(name: &str, filters: &impl std::fmt::Debug) -> Self {
        // FNV-1a tells lists apart and is no protection. A forged cursor shows rows that its
        // caller could read with other filters anyway.
        let text = format!("{name} {filters:?}");
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// The parameter `cursor` of the request.
    ///
    /// # Errors
    /// `invalid-parameter` if it is malformed or belongs to another list.
    pub fn take<C: DeserializeOwned>(&self, params: &mut Params) -> Result<Option<C>, Problem> {
        let Some(text) = params.one("cursor")? else { return Ok(None) };
        let invalid = |detail| Problem::invalid_parameter("cursor", detail);
        let bytes = Some(&text).filter(|text| text.len() <= CURSOR_BYTES);
        let bytes = bytes.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let cursor = bytes.and_then(|bytes| serde_json::from_slice::<ListCursor<C>>(&bytes).ok());
        match cursor {
            None => Err(invalid("must be the next_cursor of an answer")),
            Some(cursor) if cursor.list != self.0 => {
                Err(invalid("belongs to a list with other filters"))
            }
            Some(cursor) => Ok(Some(cursor.at)),
        }
    }

    /// The text of a cursor.
    ///
    /// # Errors
    /// Never for the cursors of this crate: they serialise.
    pub fn give<C: Serialize>(&self, at: C) -> Result<String, Problem> {
        let cursor = ListCursor { list: self.0, at };
        let json = serde_json::to_vec(&cursor).map_err(|error| Problem::internal(&error))?;
        Ok(URL_SAFE_NO_PAD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    fn params(cursor: &str) -> Params {
        Params::of(&format!("cursor={cursor}")).unwrap()
    }

    #[test]
    fn a_cursor_works_for_its_list_only() {
        let (mine, other) = (Cursors::of("orders", &("a", 1)), Cursors::of("orders", &("b", 1)));
        let text = mine.give((7_u32, "x")).unwrap();
        let taken = mine.take::<(u32, String)>(&mut params(&text)).unwrap().unwrap();
        assert_eq!(taken, (7, "x".to_owned()));
        let refused = other.take::<(u32, String)>(&mut params(&text)).unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidParameter);
        for text in ["", "x", "bm90aGluZw", &"a".repeat(600)] {
            assert!(mine.take::<(u32, String)>(&mut params(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        let of = |query: &str| limit(&mut Params::of(query).unwrap());
        assert_eq!(of("").unwrap(), LIMIT);
        assert_eq!(of("limit=200").unwrap(), 200);
        for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "limit="] {
            assert_eq!(of(query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }
}
