//! `search`: searches in a catalogue, with a line for each sort of query.

use super::{
    reading::{ReadSide, caught_up},
    system::{Program, Writing},
};
use crate::{
    args::{Args, Over, name},
    measure::{Measured, closed_loop},
    observed::Appended,
    place::Place,
    report::Line,
    shop::{Shop, currency},
};
use anyhow::{Context, Result, ensure};
use commands::product::Add;
use events::Money;
use futures::{StreamExt, TryStreamExt, stream};
use projections::{ReadModels, search::Question};
use std::sync::Arc;

/// Products per page.
const PAGE: u32 = 20;

/// Concurrent commands while the catalogue is being filled.
const FILLING: usize = 256;

/// The number of different words in texts. Few of them are frequent, most are rare.
const WORDS: usize = 20_000;

/// Words in a description.
const DESCRIPTION: usize = 30;

/// A word in every description.
const EVERYWHERE: &str = "book";

/// A word in every second name.
const OFTEN: &str = "tales";

/// The sorts of search query.
#[derive(Clone, Copy, Debug)]
enum Sort {
    Word,
    Prefix,
    Typo,
    TwoWords,
    Rare,
    InManyNames,
    InAll,
    TwoInMany,
    Mixed,
}

impl Sort {
    const ALL: [Self; 9] = [
        Self::Word,
        Self::Prefix,
        Self::Typo,
        Self::TwoWords,
        Self::Rare,
        Self::InManyNames,
        Self::InAll,
        Self::TwoInMany,
        Self::Mixed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Word => "a word",
            Self::Prefix => "the start of a word",
            Self::Typo => "a word with a typo",
            Self::TwoWords => "two words of a name",
            Self::Rare => "a rare word",
            Self::InManyNames => "a word in half of the names",
            Self::InAll => "a word in every product",
            Self::TwoInMany => "these two words together",
            Self::Mixed => "a mix of all of these",
        }
    }
}

/// Measures searches in a catalogue of `--products` products.
///
/// # Errors
/// When a search fails or finds nothing.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    match args.over {
        Over::Process => through_functions(args, place).await,
        Over::Http => over_http(args, place).await,
    }
}

async fn through_functions(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let writing = Writing::start(place).await?;
    let shop = writing.shop(&small(args), &place.environment).await?;
    let catalogue = Arc::new(Catalogue::fill(&shop, args.products).await?);
    let log = writing.stop().await;
    let side = ReadSide::start(place, &log.log).await?;
    side.caught_up().await?;
    analyze(&side.reads).await?;
    let shop = Arc::new(shop);
    let mut lines = Vec::new();
    for sort in Sort::ALL {
        let (reads, catalogue, shop) =
            (side.reads.clone(), Arc::clone(&catalogue), Arc::clone(&shop));
        let step = move |_| {
            let (reads, question) = (reads.clone(), catalogue.question(&shop, sort));
            async move {
                let asked = Question::of(&question).context("the query has no words")?;
                let found = reads.search(&asked, None, PAGE).await?;
                ensure!(!found.items.is_empty(), "the search for {question:?} found nothing");
                Ok(())
            }
        };
        let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
        lines.push(line(args, place, sort, measured));
    }
    side.stop().await;
    log.close().await;
    Ok(lines)
}

async fn over_http(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let program = Program::start(place).await?;
    let shop = Arc::new(program.shop(&small(args), &place.environment).await?);
    let catalogue = Arc::new(Catalogue::fill(&shop, args.products).await?);
    let reads = program.running().app().reads.clone().context("the program answers no queries")?;
    caught_up(&reads, place.partitions()).await?;
    analyze(&reads).await?;
    let mut lines = Vec::new();
    for sort in Sort::ALL {
        let (shop, catalogue) = (Arc::clone(&shop), Arc::clone(&catalogue));
        let step = move |_| {
            let (shop, question) = (Arc::clone(&shop), catalogue.question(&shop, sort));
            async move {
                let path = format!("/search?limit={PAGE}&q={}", question.replace(' ', "+"));
                let found = shop.http().context("not over HTTP")?.get(&path).await?;
                let items = found["items"].as_array().context("no items")?;
                ensure!(!items.is_empty(), "the search for {question:?} found nothing");
                Ok(())
            }
        };
        let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
        lines.push(line(args, place, sort, measured));
    }
    program.stop().await;
    Ok(lines)
}

/// The arguments for a shop with few products of its own, because this module adds the catalogue.
fn small(args: &Args) -> Args {
    Args { products: 2, customers: 1, ..args.clone() }
}

/// Does what the server does by itself some time after many rows were inserted.
async fn analyze(reads: &ReadModels) -> Result<()> {
    sqlx::raw_sql("vacuum analyze").execute(reads.pool()).await?;
    Ok(())
}

fn line(args: &Args, place: &Place, sort: Sort, measured: Measured) -> Line {
    let what = format!("search: {}", sort.as_str());
    let line = Line::new(what, name(place.kind()), "searches", measured);
    line.of_clients(args.over, args.clients)
}

/// Products with names and descriptions like those of books.
struct Catalogue {
    words: Vec<String>,
    /// The two varying words of each name, as indexes into `words`.
    names: Vec<[usize; 2]>,
}

impl Catalogue {
    async fn fill(shop: &Shop, products: u32) -> Result<Self> {
        let words: Vec<String> = (0..WORDS).map(word).collect();
        let names = (0..products).map(|_| [some(shop), some(shop)]).collect();
        let catalogue = Self { words, names };
        stream::iter(catalogue.names.iter().enumerate())
            .map(|(number, name)| catalogue.add(shop, number, *name))
            .buffer_unordered(FILLING)
            .try_collect::<()>()
            .await?;
        Ok(catalogue)
    }

    async fn add(&self, shop: &Shop, number: usize, name: [usize; 2]) -> Result<()> {
        let [one, two] = name.map(|at| self.words[at].as_str());
        let often = if number.is_multiple_of(2) { OFTEN } else { "of" };
        let text: Vec<&str> = (0..DESCRIPTION).map(|_| self.words[some(shop)].as_str()).collect();
        let add = Add {
            name: format!("{one} {often} {two}").into(),
            description: Some(format!("A {EVERYWHERE}: {}.", text.join(" ")).into()),
            category: Some(format!("shelf {}", number % 20).into()),
            price: Money::new(899, currency()?),
            initial_stock: 10,
        };
        shop.add(add).await
    }

    fn question(&self, shop: &Shop, sort: Sort) -> String {
        let [one, two] = self.names[shop.roll(self.names.len())].map(|at| &self.words[at]);
        match sort {
            Sort::Word => one.clone(),
            Sort::Prefix => one.chars().take(4).collect(),
            Sort::Typo => with_typo(one),
            Sort::TwoWords => format!("{one} {two}"),
            Sort::Rare => {
                let from = shop.roll(self.names.len());
                let rarest = self.names.iter().cycle().skip(from).take(100).flatten().max();
                self.words[rarest.copied().unwrap_or_default()].clone()
            }
            Sort::InManyNames => OFTEN.to_owned(),
            Sort::InAll => EVERYWHERE.to_owned(),
            Sort::TwoInMany => format!("{OFTEN} {EVERYWHERE}"),
            Sort::Mixed => self.question(shop, Sort::ALL[shop.roll(Sort::ALL.len() - 1)]),
        }
    }
}

/// A random index into the words. The first three words together are as likely as the next twelve
/// together, and so on.
fn some(shop: &Shop) -> usize {
    let from = 4_usize.pow([0, 1, 2, 3, 4, 5, 6, 7][shop.roll(8)]);
    from + shop.roll(WORDS.min(4 * from) - from)
}

/// A pronounceable word for each number. No two words are the same.
fn word(number: usize) -> String {
    const FIRST: [&str; 14] =
        ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "br"];
    const THEN: [&str; 5] = ["a", "e", "i", "o", "u"];
    let (mut word, mut left) = (String::new(), number * 7_919 % 24_010_000);
    for _ in 0..4 {
        word.push_str(FIRST[left % FIRST.len()]);
        left /= FIRST.len();
        word.push_str(THEN[left % THEN.len()]);
        left /= THEN.len();
    }
    word
}

/// Swaps two letters in the middle of a word.
fn with_typo(word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let middle = letters.len() / 2;
    letters.swap(middle - 1, middle);
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_words_are_the_same() {
        let words: BTreeSet<String> = (0..WORDS).map(word).collect();
        assert_eq!(words.len(), WORDS);
        assert_eq!(with_typo("abcdef"), "abdcef");
    }
}
