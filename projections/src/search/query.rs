//! Questions to products.

use super::{
    MANY, RANKED,
    terms::{MAX_WORDS, Question, Size, Term, meanings, sizes},
};
use crate::{Page, QueryError, ReadModels, products::Product};
use events::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Products examined for a page when there are too many to rank.
const WALK: i64 = 5_000;

/// The last product of a page, and everything that decides what follows it. New products and newly
/// known words therefore do not change the pages of a search that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// What each word of the question stands for.
    terms: Vec<Term>,
    tier: Tier,
    /// Whether the tier is ranked.
    ranked: bool,
    score: i32,
    created_at: Timestamp,
    product_id: Uuid,
}

impl Cursor {
    /// Whether the cursor can be one of ours. Clients can send any text.
    pub fn is_sound(&self) -> bool {
        let terms = 1..=MAX_WORDS;
        terms.contains(&self.terms.len()) && self.terms.iter().all(Term::is_sound)
    }
}

/// Where a product has the words of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
enum Tier {
    /// All of them in the name.
    Name,
    /// At least one of them only in the category or description.
    Elsewhere,
}

/// The statements of a tier. The index finds the products with one word; the other words are
/// checked row by row.
macro_rules! tier {
    ($vector:literal, $rest:literal) => {
        Statements {
            ranked: concat!(
                "select product_id, created_at, score from (select product_id, created_at, \
                 (1000000 * (ts_rank(",
                $vector,
                ", $1::tsquery, 1) + 4 * ts_rank(",
                $vector,
                ", $2::tsquery, 1)))::integer as score from read.search where ",
                $vector,
                " @@ $3::tsquery and ts_match_vq(",
                $vector,
                ", $1::tsquery)",
                $rest,
                ") hit where $4::integer is null or (score, created_at, product_id) < ($4, $5, $6) \
                 order by score desc, created_at desc, product_id desc limit $7"
            ),
            newest: concat!(
                "select product_id, created_at, 0 as score from (select product_id, created_at, \
                 ts_match_vq(",
                $vector,
                ", $1::tsquery)",
                $rest,
                " as hit from read.search where (created_at, product_id) < ($2, $3) \
                 order by created_at desc, product_id desc limit $4) walked where hit limit $5"
            ),
        }
    };
}

struct Statements {
    ranked: &'static str,
    newest: &'static str,
}

/// The last row that a walk examined, if it ended before the end of the table.
const WALKED: &str = "select product_id, created_at, 0 as score from read.search \
                      where (created_at, product_id) < ($1, $2) \
                      order by created_at desc, product_id desc offset $3 - 1 limit 1";

impl Tier {
    /// An upper bound on the number of products of this tier that have a word.
    fn holds(self, size: &Size) -> i64 {
        match self {
            Self::Name => size.names,
            Self::Elsewhere => size.products,
        }
    }

    fn statements(self) -> Statements {
        match self {
            Self::Name => tier!("name", ""),
            Self::Elsewhere => tier!("whole", " and not ts_match_vq(name, $1::tsquery)"),
        }
    }
}

#[derive(FromRow)]
struct Hit {
    product_id: Uuid,
    created_at: Timestamp,
    score: i32,
}

impl ReadModels {
    /// The products that match `question`, the best first, after the product `after`, at most
    /// `limit`. A page may be shorter although more follow. A product is left out while one of the
    /// read models `search` and `products` does not have it yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn search(
        &self,
        question: &Question,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Product, Cursor>, QueryError> {
        let question = question.clone();
        let (hits, next) = self
            .ask(move |pool| async move {
                // Never scan a table of all products.
                let begin = "begin read only; set local enable_seqscan = off; \
                             set local pg_trgm.similarity_threshold = 0.25";
                let mut tx = pool.begin_with(begin).await?;
                let terms = match &after {
                    Some(cursor) => cursor.terms.clone(),
                    None => meanings(&mut tx, &question.0).await?,
                };
                let found = SearchRun { connection: &mut tx, terms }.page(after, limit).await?;
                tx.commit().await?;
                Ok(found)
            })
            .await?;
        let mut products = self.products_by_id(hits.clone()).await?;
        let items = hits.iter().filter_map(|id| products.remove(id));
        Ok(Page { items: items.filter(|product| !product.discontinued).collect(), next })
    }
}

/// One search, in its transaction.
struct SearchRun<'c> {
    connection: &'c mut PgConnection,
    terms: Vec<Term>,
}

/// How a tier is read, and where the page begins.
#[derive(Clone, Copy)]
struct Place {
    tier: Tier,
    ranked: bool,
    behind: Option<(i32, Timestamp, Uuid)>,
}

impl SearchRun<'_> {
    async fn page(
        mut self,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<Uuid>, Option<Cursor>), QueryError> {
        if self.terms.iter().any(Term::means_nothing) {
            return Ok((Vec::new(), None));
        }
        let wanted = limit as usize + 1;
        let mut found: Vec<(Place, Hit)> = Vec::new();
        let mut stopped = None;
        for tier in [Tier::Name, Tier::Elsewhere] {
            let here = after.as_ref().filter(|after| after.tier == tier);
            if found.len() == wanted || after.as_ref().is_some_and(|after| tier < after.tier) {
                continue;
            }
            let sizes = sizes(self.connection, &self.terms).await?;
            let ranked = match here {
                Some(after) => after.ranked,
                None => sizes.iter().any(|size| tier.holds(size) <= RANKED),
            };
            let behind = here.map(|after| (after.score, after.created_at, after.product_id));
            let mut place = Place { tier, ranked, behind };
            let left = wanted - found.len();
            let mut hits = if ranked { Vec::new() } else { self.newest(place, left).await? };
            // Each word is in many products, but few products have all of them: the index finds
            // those.
            let seldom = here.is_none() && hits.len() < left;
            place.ranked |= seldom && sizes.iter().any(|size| tier.holds(size) <= MANY);
            if place.ranked {
                hits = self.best(place, &sizes, left).await?;
            }
            let is_short = hits.len() < left;
            found.extend(hits.into_iter().map(|hit| (place, hit)));
            if !place.ranked && is_short {
                stopped = self.walked(place).await?.map(|hit| (place, hit));
                if stopped.is_some() {
                    break;
                }
            }
        }
        let more = found.len() == wanted;
        found.truncate(limit as usize);
        let last = if more { found.last() } else { stopped.as_ref() };
        let next = last.map(|(place, hit)| self.cursor(*place, hit));
        Ok((found.iter().map(|(_, hit)| hit.product_id).collect(), next))
    }

    fn cursor(&self, place: Place, hit: &Hit) -> Cursor {
        Cursor {
            terms: self.terms.clone(),
            tier: place.tier,
            ranked: place.ranked,
            score: hit.score,
            created_at: hit.created_at,
            product_id: hit.product_id,
        }
    }

    /// The text search query for all words.
    fn query(&self) -> String {
        let terms: Vec<String> = self.terms.iter().map(Term::query).collect();
        terms.join(" & ")
    }

    async fn best(
        &mut self,
        place: Place,
        sizes: &[Size],
        limit: usize,
    ) -> Result<Vec<Hit>, sqlx::Error> {
        let exactly: Vec<String> = self.terms.iter().map(Term::exactly).collect();
        let rarest = self.terms.iter().zip(sizes).min_by_key(|(_, size)| place.tier.holds(size));
        sqlx::query_as(place.tier.statements().ranked)
            .bind(self.query())
            .bind(exactly.join(" | "))
            .bind(match rarest {
                Some((term, size)) if place.tier.holds(size) <= RANKED => term.query(),
                _ => self.query(),
            })
            .bind(place.behind.map(|(score, ..)| score))
            .bind(place.behind.map(|(_, created_at, _)| created_at))
            .bind(place.behind.map(|(.., product_id)| product_id))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.connection)
            .await
    }

    async fn newest(&mut self, place: Place, limit: usize) -> Result<Vec<Hit>, sqlx::Error> {
        let (created_at, product_id) = behind(place);
        sqlx::query_as(place.tier.statements().newest)
            .bind(self.query())
            .bind(created_at)
            .bind(product_id)
            .bind(WALK)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.connection)
            .await
    }

    async fn walked(&mut self, place: Place) -> Result<Option<Hit>, sqlx::Error> {
        let (created_at, product_id) = behind(place);
        let walked = sqlx::query_as(WALKED).bind(created_at).bind(product_id).bind(WALK);
        walked.fetch_optional(&mut *self.connection).await
    }
}

fn behind(place: Place) -> (Timestamp, Uuid) {
    let newest = (Timestamp::MAX_UTC, Uuid::max());
    place.behind.map_or(newest, |(_, created_at, product_id)| (created_at, product_id))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{terms::MAX_WORDS, words::MAX_WORD},
        *,
    };

    #[test]
    fn no_cursor_from_outside_can_write_a_query() {
        let sound = |terms: Vec<Term>| {
            let (score, created_at, product_id) = (1, Timestamp::UNIX_EPOCH, Uuid::nil());
            let (tier, ranked) = (Tier::Name, true);
            Cursor { terms, tier, ranked, score, created_at, product_id }.is_sound()
        };
        let begins = |word: &str| Term::Begins(word.to_owned());
        assert!(sound(vec![begins("war"), Term::Meant(vec!["kafka".to_owned()])]));
        assert!(!sound(vec![]) && !sound(vec![begins("war"); MAX_WORDS + 1]));
        for word in ["' | 'a", "", "A", "a b", &"x".repeat(MAX_WORD + 1)] {
            assert!(!sound(vec![begins(word)]), "{word}");
            assert!(!sound(vec![Term::Meant(vec![word.to_owned()])]), "{word}");
        }
    }
}
