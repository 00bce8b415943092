//! What the words of a question stand for, and how many products have them.

use super::{
    MANY,
    words::{is_word, words},
};
use crate::QueryError;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};

/// Most characters of a question.
const MAX_QUESTION: usize = 200;

/// Most words of a question.
const MAX_WORDS: usize = 8;

/// Most known words that a mistyped word may stand for.
const MAX_MEANT: usize = 5;

/// Most known words that are compared with a mistyped one.
const MAX_ALIKE: i64 = 40;

/// Most words with the same beginning that are counted.
const MAX_LOOKED_UP: i64 = 2_000;

/// The words to search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(pub(super) Vec<String>);

/// The text cannot be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 8 words, and 200 characters at most")]
pub struct InvalidSearch;

impl Question {
    /// The question in a text.
    ///
    /// # Errors
    /// When the text has no words, or too many, or is too long.
    pub fn of(text: &str) -> Result<Self, InvalidSearch> {
        if text.chars().count() > MAX_QUESTION {
            return Err(InvalidSearch);
        }
        let mut words = words(text);
        words.sort_unstable();
        words.dedup();
        if words.is_empty() || words.len() > MAX_WORDS {
            return Err(InvalidSearch);
        }
        Ok(Self(words))
    }
}

/// What a word of the question stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Term {
    /// The word itself, and every word that begins with it.
    Begins(String),
    /// Any of these known words, because the word is mistyped.
    Meant(Vec<String>),
}

impl Term {
    /// Whether [`meanings`] can make this term of `word`.
    pub fn may_stand_for(&self, word: &str) -> bool {
        match self {
            Self::Begins(it) => it == word,
            Self::Meant(known) => {
                let near = |it: &String| is_word(it) && slips(word, it) <= most_slips(word);
                known.len() <= MAX_MEANT && known.iter().all(near)
            }
        }
    }

    pub fn means_nothing(&self) -> bool {
        matches!(self, Self::Meant(words) if words.is_empty())
    }

    /// The known words that the term stands for, as ranges: from (inclusive) and to (exclusive).
    fn ranges(&self) -> Vec<(String, String)> {
        match self {
            Self::Begins(word) => vec![(word.clone(), format!("{word}{}", char::MAX))],
            Self::Meant(words) => {
                words.iter().map(|word| (word.clone(), format!("{word}\u{1}"))).collect()
            }
        }
    }

    /// The term as a text search query. Words never contain quotes.
    pub fn query(&self) -> String {
        match self {
            Self::Begins(word) => format!("'{word}':*"),
            Self::Meant(words) => format!("({})", any_of(words)),
        }
    }

    pub fn exactly(&self) -> String {
        match self {
            Self::Begins(word) => format!("'{word}'"),
            Self::Meant(words) => any_of(words),
        }
    }
}

fn any_of(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    quoted.join(" | ")
}

/// What each word stands for: itself if a product has a word that begins with it, otherwise the
/// known words that look most like it.
pub(super) async fn meanings(
    connection: &mut PgConnection,
    words: &[String],
) -> Result<Vec<Term>, QueryError> {
    let mut terms: Vec<Term> = words.iter().cloned().map(Term::Begins).collect();
    let sizes = sizes(connection, &terms).await?;
    for (term, word) in terms
        .iter_mut()
        .zip(words)
        .zip(sizes)
        .filter_map(|(term, size)| (size.products == 0).then_some(term))
    {
        *term = Term::Meant(meant(word, alike(connection, word).await?));
    }
    Ok(terms)
}

/// An upper bound on the number of products that have a word of the term.
#[derive(FromRow)]
pub(super) struct Size {
    pub names: i64,
    pub products: i64,
}

/// The sizes of all terms. A beginning with too many words to count is treated as being in too many
/// products.
pub(super) async fn sizes(
    connection: &mut PgConnection,
    terms: &[Term],
) -> Result<Vec<Size>, sqlx::Error> {
    let (mut places, mut least, mut below) = (Vec::new(), Vec::new(), Vec::new());
    for (term, place) in terms.iter().zip(1_i32..) {
        for (from, to) in term.ranges() {
            places.push(place);
            least.push(from);
            below.push(to);
        }
    }
    sqlx::query_as(
        "select sum(case when s.words < $4 then s.names else $5 end)::bigint as names, \
         sum(case when s.words < $4 then s.products else $5 end)::bigint as products \
         from unnest($1::integer[], $2::text[], $3::text[]) as r(place, least, below), \
         lateral (select count(*) as words, coalesce(sum(names), 0) as names, \
         coalesce(sum(products), 0) as products from (select names, products from read.search_word \
         where word >= r.least collate \"C\" and word < r.below collate \"C\" limit $4) w) s \
         group by place order by place",
    )
    .bind(places)
    .bind(least)
    .bind(below)
    .bind(MAX_LOOKED_UP)
    .bind(MANY + 1)
    .fetch_all(connection)
    .await
}

/// Known words that share trigrams with `word`, the most similar first.
async fn alike(connection: &mut PgConnection, word: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select word from read.search_word where word % $1 group by word having sum(products) > 0 \
         order by similarity(word, $1) desc, word limit $2",
    )
    .bind(word)
    .bind(MAX_ALIKE)
    .fetch_all(connection)
    .await
}

/// The words of `known` with the fewest typing errors compared with `word`: at most one in a short
/// word, two in a longer one.
fn meant(word: &str, known: Vec<String>) -> Vec<String> {
    let near: Vec<(usize, String)> = known.into_iter().map(|it| (slips(word, &it), it)).collect();
    let fewest = near.iter().map(|(slips, _)| *slips).min();
    let fewest = fewest.filter(|fewest| *fewest <= most_slips(word));
    let nearest = near.into_iter().filter(|(slips, _)| Some(*slips) == fewest);
    nearest.map(|(_, word)| word).take(MAX_MEANT).collect()
}

/// The number of typing errors between two words.
fn slips(word: &str, known: &str) -> usize {
    strsim::osa_distance(word, known)
}

fn most_slips(word: &str) -> usize {
    if word.chars().count() <= 4 { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_words_and_not_too_many() {
        let of = |text: &str| Question::of(text).map(|question| question.0);
        assert_eq!(of(" War  and WAR! ").unwrap(), ["and", "war"]);
        for text in ["", " ", "-- '", "a b c d e f g h i", &"x".repeat(MAX_QUESTION + 1)] {
            assert_eq!(of(text), Err(InvalidSearch), "{text}");
        }
    }

    #[test]
    fn a_mistyped_word_stands_for_the_nearest_ones() {
        let known = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(meant("kafak", known(&["kafka", "kafkas", "kayak"])), ["kafka", "kayak"]);
        assert_eq!(meant("philosphy", known(&["philosophy", "philosopher"])), ["philosophy"]);
        assert!(meant("rut", known(&["truth", "trust"])).is_empty());
        assert!(meant("x", Vec::new()).is_empty());
    }
}
