//! Search: products by their words, from `PostgreSQL`'s full text, and words by their trigrams, for those that are mistyped.
//!
//! A product is found when it has all words of the question, in name, category or description; a word of the question is
//! also the beginning of longer ones. Only a word that nothing begins with is taken for a mistyped one. What is found comes
//! in two tiers, first those with all words in their names. A tier is ranked if one word of the question is in no more than
//! [`RANKED`] products; otherwise it comes newest first, and a page looks at a bounded number of products (and asks the
//! index after all if words that are common hardly ever meet): so a word that every product has costs no more than one that
//! few have.

mod apply;
mod query;
mod terms;
mod words;

pub(crate) use apply::Search;
pub use query::Cursor;
pub use terms::{InvalidSearch, Question};

/// Products that are compared with each other for one answer.
pub const RANKED: i64 = 500;

/// A word in more products than this is never looked up in the index, which would name them all.
const MANY: i64 = 10_000;
