//! Pages of lists: the parameters, the body, and the cursors.

use super::{Found, list};
use crate::{App, causality::Freshness, extract::Params, problem::Problem};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::response::Response;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use events::seal::Key;
use projections::Page;
use serde::{Serialize, de::DeserializeOwned};

/// Items of a page, unless the caller sets a limit.
const LIMIT: u32 = 50;
/// The most items of a page.
const LIMIT_MAX: u32 = 200;
/// The most bytes of a cursor. The cursor of a search contains what its words stand for: up to 40
/// words.
pub(crate) const CURSOR_BYTES: usize = 8192;

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
        app: &App,
        name: &str,
        filters: &impl std::fmt::Debug,
        mut params: Params,
    ) -> Result<Self, Problem> {
        let cursors = Cursors::of(&app.cursor_secret, name, filters);
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
    let limit = params.number("limit", &expected)?.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid_parameter("limit", &format!("must be {expected}")))
}

/// The problem for a cursor that no answer of this list has given out.
pub(crate) fn foreign_cursor() -> Problem {
    let detail = "must be the next_cursor of an answer of this list, with the same filters";
    Problem::invalid_parameter("cursor", detail)
}

/// Writes and reads the cursors of one list: one path with one set of filters.
///
/// A cursor is where the next page begins, behind a MAC of that and of the list. So a query gets
/// only positions that the same list has given out, which its statements are fit for, and no client
/// can make a query more expensive by changing a cursor.
pub struct Cursors {
    secret: Key,
    list: String,
}

/// The bytes of the MAC at the beginning of a cursor.
const TAG_BYTES: usize = 16;

impl Cursors {
    /// For the list of this name with these filters, signed with `secret`, which all nodes share.
    pub fn of(secret: &Key, name: &str, filters: &impl std::fmt::Debug) -> Self {
        Self { secret: secret.clone(), list: format!("{name} {filters:?}") }
    }

    /// The parameter `cursor` of the request.
    ///
    /// # Errors
    /// `invalid-parameter` if this list has not given it out.
    pub fn take<C: DeserializeOwned>(&self, params: &mut Params) -> Result<Option<C>, Problem> {
        let Some(text) = params.one("cursor")? else { return Ok(None) };
        self.open(&text).map(Some).ok_or_else(foreign_cursor)
    }

    fn open<C: DeserializeOwned>(&self, text: &str) -> Option<C> {
        let text = Some(text).filter(|text| text.len() <= CURSOR_BYTES)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, at) = bytes.split_at_checked(TAG_BYTES)?;
        verify_slices_are_equal(&self.tag(at), tag).ok()?;
        serde_json::from_slice(at).ok()
    }

    /// The text of a cursor.
    ///
    /// # Errors
    /// Never for the cursors of this crate: they serialise.
    pub fn give<C: Serialize>(&self, at: C) -> Result<String, Problem> {
        let at = serde_json::to_vec(&at).map_err(|error| Problem::internal(&error))?;
        Ok(URL_SAFE_NO_PAD.encode([&self.tag(&at)[..], &at].concat()))
    }

    fn tag(&self, at: &[u8]) -> [u8; TAG_BYTES] {
        self.secret.hmac(&[self.list.as_bytes(), at])
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
        let (ours, theirs) = (Key::new([1; 32]), Key::new([2; 32]));
        let mine = Cursors::of(&ours, "orders", &("a", 1));
        let text = mine.give((7_u32, "x")).unwrap();
        let taken = mine.take::<(u32, String)>(&mut params(&text)).unwrap().unwrap();
        assert_eq!(taken, (7, "x".to_owned()));
        let others = [
            Cursors::of(&ours, "orders", &("b", 1)),
            Cursors::of(&ours, "products", &("a", 1)),
            Cursors::of(&theirs, "orders", &("a", 1)),
        ];
        for other in others {
            let refused = other.take::<(u32, String)>(&mut params(&text)).unwrap_err();
            assert_eq!(refused.kind(), Kind::InvalidParameter);
        }
    }

    #[test]
    fn a_cursor_with_another_place_is_refused() {
        let cursors = Cursors::of(&Key::new([1; 32]), "orders", &());
        let text = cursors.give((7_u32, "x")).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        let moved = URL_SAFE_NO_PAD.encode([&bytes[..TAG_BYTES], b"[8,\"x\"]"].concat());
        let bare = URL_SAFE_NO_PAD.encode(b"[7,\"x\"]");
        let long = "a".repeat(CURSOR_BYTES + 1);
        for text in [&moved, &bare, &text[1..], "", "x", "bm90aGluZw", &long] {
            let refused = cursors.take::<(u32, String)>(&mut params(text)).unwrap_err();
            assert_eq!(refused.kind(), Kind::InvalidParameter, "{text}");
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        let of = |query: &str| limit(&mut Params::of(query).unwrap());
        assert_eq!(of("").unwrap(), LIMIT);
        assert_eq!(of("limit=200").unwrap(), 200);
        for query in
            ["limit=0", "limit=201", "limit=-1", "limit=x", "limit=", "limit=%2B5", "limit=05"]
        {
            assert_eq!(of(query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }
}
