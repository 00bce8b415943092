//! Events to rows. Only events that describe a product change rows.

use super::words::words;
use crate::{
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::{applied::Applied, gather::Gather},
};
use async_trait::async_trait;
use events::{Event, StreamKind, Timestamp, product};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};
use uuid::Uuid;

/// The most positions of a word that are stored. More would not improve the ranking.
const MAX_PLACES: usize = 3;

/// Rows written by one statement. Adding many new words to an index takes a while, and a statement
/// must not take long.
const PIECE: usize = 1_000;

/// The largest position that a `tsvector` can store.
const LAST_PLACE: usize = 16_383;

/// The text in an event that describes a product.
macro_rules! text {
    ($event:expr) => {
        Text::of(&$event.name, $event.category.as_deref(), $event.description.as_deref())
    };
}

/// The tables of one version.
#[derive(Clone)]
pub(crate) struct Search {
    load: Arc<str>,
    delete: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    count: Arc<str>,
}

impl Search {
    pub fn new(schema: &str) -> Self {
        let load = format!(
            "select product_id, tsvector_to_array(name), tsvector_to_array(whole) \
             from {schema}.search where product_id = any($1)"
        );
        let delete = format!("delete from {schema}.search where product_id = any($1)");
        let insert = format!(
            "insert into {schema}.search (product_id, partition, created_at, name, whole) \
             select id, partition, created_at, name::tsvector, whole::tsvector \
             from unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[], $5::text[]) \
             as u(id, partition, created_at, name, whole)"
        );
        let update = format!(
            "update {schema}.search t set name = u.name::tsvector, whole = u.whole::tsvector \
             from unnest($1::uuid[], $2::text[], $3::text[]) as u(id, name, whole) \
             where t.product_id = u.id"
        );
        let count = format!(
            "insert into {schema}.search_word as t (word, partition, names, products) \
             select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) \
             on conflict (word, partition) do update set \
             names = t.names + excluded.names, products = t.products + excluded.products \
             where excluded.names <> 0 or excluded.products <> 0"
        );
        Self {
            load: load.into(),
            delete: delete.into(),
            insert: insert.into(),
            update: update.into(),
            count: count.into(),
        }
    }
}

/// What the facts say about a product.
#[derive(Default)]
struct Folded {
    partition: i32,
    /// When it was added, if the facts include that.
    added: Option<Timestamp>,
    text: Option<Text>,
    discontinued: bool,
}

/// How many more products have a word: in their names, and anywhere.
type Counts = BTreeMap<(String, i32), [i64; 2]>;

#[async_trait]
impl Projection for Search {
    fn takes(&self, kind: StreamKind) -> bool {
        kind == StreamKind::Product
    }

    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        let (products, mut counts) = fold(facts);
        if products.is_empty() {
            return Ok(());
        }
        let before = self.load(connection, &products).await?;
        for (id, words) in &before {
            count(&mut counts, products[id].partition, words, -1);
        }
        let living = || {
            let living = products.iter().filter(|(_, it)| !it.discontinued);
            living.filter_map(|(id, it)| Some((*id, it, it.text.as_ref()?)))
        };
        // A product that was discontinued earlier has no row, and a new description does not give
        // it one.
        for (_, it, text) in
            living().filter(|(id, it, _)| it.added.is_some() || before.contains_key(id))
        {
            count(&mut counts, it.partition, &text.words(), 1);
        }
        let gone = products.iter().filter(|(_, it)| it.discontinued).map(|(id, _)| *id);
        let delete = sqlx::query(AssertSqlSafe(Arc::clone(&self.delete)));
        delete.bind(gone.collect::<Vec<_>>()).execute(&mut *connection).await?;
        let described = living().map(|(id, it, text)| (id, it, text.vectors()));
        let (new, old): (Vec<_>, Vec<_>) = described.partition(|(_, it, _)| it.added.is_some());
        self.insert(connection, &new).await?;
        self.update(connection, &old).await?;
        self.count(connection, counts).await?;
        Ok(())
    }

    fn gather(&self) -> Box<dyn Gather> {
        let describes = |event: &Event| {
            matches!(event, Event::Product(event) if !matches!(
                event,
                product::Event::StockChanged(_)
                    | product::Event::StockReserved(_)
                    | product::Event::StockReleased(_)
                    | product::Event::StockShipped(_)
            ))
        };
        Box::new(Applied::new(self.clone(), describes))
    }
}

type Described<'a> = (Uuid, &'a Folded, Vectors);

impl Search {
    /// The words of the products that were added earlier.
    async fn load(
        &self,
        connection: &mut PgConnection,
        products: &BTreeMap<Uuid, Folded>,
    ) -> Result<BTreeMap<Uuid, Words>, sqlx::Error> {
        let old = products.iter().filter(|(_, it)| it.added.is_none()).map(|(id, _)| *id);
        let old: Vec<Uuid> = old.collect();
        if old.is_empty() {
            return Ok(BTreeMap::new());
        }
        let load = sqlx::query_as(AssertSqlSafe(Arc::clone(&self.load)));
        let rows: Vec<(Uuid, Vec<String>, Vec<String>)> =
            load.bind(old).fetch_all(connection).await?;
        let words = |(id, name, whole): (Uuid, Vec<String>, Vec<String>)| {
            (id, Words { name: name.into_iter().collect(), whole: whole.into_iter().collect() })
        };
        Ok(rows.into_iter().map(words).collect())
    }

    async fn count(
        &self,
        connection: &mut PgConnection,
        counts: Counts,
    ) -> Result<(), sqlx::Error> {
        let counts: Vec<_> = counts.into_iter().collect();
        for counts in counts.chunks(PIECE) {
            sqlx::query(AssertSqlSafe(Arc::clone(&self.count)))
                .bind(counts.iter().map(|((word, _), _)| word.as_str()).collect::<Vec<_>>())
                .bind(counts.iter().map(|((_, partition), _)| *partition).collect::<Vec<_>>())
                .bind(counts.iter().map(|(_, [names, _])| *names).collect::<Vec<_>>())
                .bind(counts.iter().map(|(_, [_, products])| *products).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        rows: &[Described<'_>],
    ) -> Result<(), sqlx::Error> {
        for rows in rows.chunks(PIECE) {
            sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)))
                .bind(rows.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, it, _)| it.partition).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, it, _)| it.added).collect::<Vec<_>>())
                .bind(rows.iter().map(|(.., to)| to.name.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(.., to)| to.whole.as_str()).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// Changes nothing for a discontinued product, because it has no row.
    async fn update(
        &self,
        connection: &mut PgConnection,
        rows: &[Described<'_>],
    ) -> Result<(), sqlx::Error> {
        for rows in rows.chunks(PIECE) {
            sqlx::query(AssertSqlSafe(Arc::clone(&self.update)))
                .bind(rows.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
                .bind(rows.iter().map(|(.., to)| to.name.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(.., to)| to.whole.as_str()).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

/// The products that the facts describe, and all their words with a count of 0.
fn fold(facts: &Facts<'_>) -> (BTreeMap<Uuid, Folded>, Counts) {
    let mut products: BTreeMap<Uuid, Folded> = BTreeMap::new();
    let mut counts = Counts::new();
    for fact in facts.iter() {
        let Event::Product(event) = &fact.event else { continue };
        let text = match event {
            product::Event::Added(it) => Some(text!(it)),
            product::Event::Changed(it) => Some(text!(it)),
            product::Event::Discontinued(_) => None,
            product::Event::StockChanged(_)
            | product::Event::StockReserved(_)
            | product::Event::StockReleased(_)
            | product::Event::StockShipped(_) => continue,
        };
        let folded = products.entry(fact.record.stream.id).or_default();
        folded.partition = sql_partition(fact.position.partition);
        if matches!(event, product::Event::Added(_)) {
            folded.added = Some(fact.record.time);
        }
        match text {
            Some(text) => {
                count(&mut counts, folded.partition, &text.words(), 0);
                folded.text = Some(text);
            }
            None => folded.discontinued = true,
        }
    }
    (products, counts)
}

/// Counts the words of a product: `times` is 1, -1, or 0 for words that only become known.
fn count(counts: &mut Counts, partition: i32, words: &Words, times: i64) {
    for word in &words.whole {
        let [names, products] = counts.entry((word.clone(), partition)).or_default();
        *products += times;
        *names += times * i64::from(words.name.contains(word));
    }
}

/// The distinct words of a product: those of its name, and all.
struct Words {
    name: BTreeSet<String>,
    whole: BTreeSet<String>,
}

/// The words of name, category and description, with their weights.
struct Text([(Vec<String>, char); 3]);

/// `tsvector` values in `PostgreSQL`'s text format.
struct Vectors {
    name: String,
    whole: String,
}

impl Text {
    fn of(name: &str, category: Option<&str>, description: Option<&str>) -> Self {
        let of = |text: Option<&str>| text.map(words).unwrap_or_default();
        Self([(words(name), 'A'), (of(category), 'B'), (of(description), 'D')])
    }

    fn words(&self) -> Words {
        let all = |parts: &[(Vec<String>, char)]| {
            parts.iter().flat_map(|(words, _)| words.iter().cloned()).collect()
        };
        Words { name: all(&self.0[..1]), whole: all(&self.0) }
    }

    fn vectors(&self) -> Vectors {
        Vectors { name: vector(&self.0[..1]), whole: vector(&self.0) }
    }
}

/// `'word':1A,4B 'other':2A`. Words never contain quotes.
fn vector(parts: &[(Vec<String>, char)]) -> String {
    let mut places: BTreeMap<&str, Vec<(usize, char)>> = BTreeMap::new();
    let all = parts.iter().flat_map(|(words, weight)| words.iter().map(move |word| (word, weight)));
    for ((word, weight), place) in all.zip(1..) {
        let of = places.entry(word).or_default();
        if of.len() < MAX_PLACES {
            of.push((place.min(LAST_PLACE), *weight));
        }
    }
    let mut vector = String::new();
    for (word, places) in places {
        let mut colon = ':';
        // Writing to a string cannot fail.
        let _ = write!(vector, "'{word}'");
        for (place, weight) in places {
            let _ = write!(vector, "{colon}{place}{weight}");
            colon = ',';
        }
        vector.push(' ');
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_names_words_places_and_weights() {
        let text = Text::of("War and War", Some("novels"), Some("War, of a kind."));
        let Vectors { name, whole } = text.vectors();
        assert_eq!(name, "'and':2A 'war':1A,3A ");
        assert_eq!(whole, "'a':7D 'and':2A 'kind':8D 'novels':4B 'of':6D 'war':1A,3A,5D ");
    }
}
