//! Questions to products.

use super::{
    MANY, RANKED,
    terms::{Question, Size, Term, meanings, sizes},
};
use crate::{Page, QueryError, ReadModels, products::Product};
use events::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Products examined for a page when there are too many to rank.
const WALK: i64 = 5_000;

/// The last product of a page, and what the words of the question stood for. Newly known words
/// therefore do not change the pages of a search that has begun.
///
/// A cursor says where a search goes on. How it goes on is worked out anew for each page, so that no
/// cursor makes a page cost more than a first page may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// What each word of the question stands for.
    terms: Vec<Term>,
    tier: Tier,
    /// The score in a ranked tier; `None` in a tier ordered by age.
    score: Option<i32>,
    created_at: Timestamp,
    product_id: Uuid,
}

impl Cursor {
    /// Whether a page of `question` can have given the cursor out.
    pub fn is_of(&self, question: &Question) -> bool {
        let Question(words) = question;
        let pairs = || self.terms.iter().zip(words);
        self.terms.len() == words.len() && pairs().all(|(term, word)| term.may_stand_for(word))
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
                "select product_id, created_at, null::integer as score from (select product_id, created_at, \
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
const WALKED: &str = "select product_id, created_at, null::integer as score from read.search \
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
    score: Option<i32>,
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
            .ask_costly(move |pool| async move {
                // Never scan a table of all products, and give up before the caller does.
                let begin = "begin read only; set local enable_seqscan = off; \
                             set local statement_timeout = '2s'; \
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
    behind: Option<(Option<i32>, Timestamp, Uuid)>,
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
            let most = |bound: i64| sizes.iter().any(|size| tier.holds(size) <= bound);
            let ranked = match here {
                // A tier keeps its order from page to page. It may have been ranked although it is
                // large, but not beyond what the index may be asked for.
                Some(after) => after.score.is_some() && most(MANY),
                None => most(RANKED),
            };
            let behind = here.map(|after| (after.score, after.created_at, after.product_id));
            let mut place = Place { tier, ranked, behind };
            let left = wanted - found.len();
            let mut hits = if ranked { Vec::new() } else { self.newest(place, left).await? };
            // Each word is in many products, but few products have all of them: the index finds
            // those.
            let seldom = here.is_none() && hits.len() < left;
            place.ranked |= seldom && most(MANY);
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
            .bind(place.behind.and_then(|(score, ..)| score))
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
    use super::*;

    /// A cursor can neither write a query nor search for what the question does not ask for.
    #[test]
    fn a_cursor_has_the_words_of_its_question() {
        let question = Question::of("kafak war").unwrap();
        let fits = |terms: Vec<Term>| {
            let (score, created_at, product_id) = (Some(1), Timestamp::UNIX_EPOCH, Uuid::nil());
            let tier = Tier::Name;
            Cursor { terms, tier, score, created_at, product_id }.is_of(&question)
        };
        let begins = |word: &str| Term::Begins(word.to_owned());
        let meant = |word: &str| Term::Meant(vec![word.to_owned()]);
        assert!(fits(vec![begins("kafak"), begins("war")]));
        assert!(fits(vec![meant("kafka"), begins("war")]));
        assert!(fits(vec![Term::Meant(Vec::new()), begins("war")]));
        assert!(!fits(vec![]) && !fits(vec![begins("war")]));
        assert!(!fits(vec![begins("war"), begins("kafak")]));
        assert!(!fits(vec![begins("kafak"), begins("war"), begins("a")]));
        for word in ["' | 'a", "", "a", "Kafak", "kafak b", "shakespeare"] {
            assert!(!fits(vec![begins(word), begins("war")]), "{word}");
            assert!(!fits(vec![meant(word), begins("war")]), "{word}");
        }
        let many = Term::Meant(vec!["kafka".to_owned(); 6]);
        assert!(!fits(vec![many, begins("war")]));
    }
}
