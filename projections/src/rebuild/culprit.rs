//! Finds the event that made a row differ between two versions, by applying the events of the row's
//! stream one by one.

use super::difference::Difference;
use crate::{
    checkpoint::Checkpoint,
    facts::{Decoded, Fact, Facts},
    version::{self, VersionId},
    worker::Context,
};
use events::{
    Offset, Partition, Position,
    log::{BatchReader, Cursor, ReadError},
};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A stream with more events than this is not searched.
const LONGEST: usize = 10_000;

/// The position of the event. `None` if the row does not belong to a stream, or if no event
/// explains the difference.
pub(super) async fn find(
    context: &Context,
    connection: &mut PgConnection,
    id: VersionId,
    difference: &Difference,
    to: &BTreeMap<Partition, Checkpoint>,
) -> Result<Option<Position>, super::verify::Unknown> {
    let partition = Partition(difference.partition);
    let (serving, rebuilt) =
        (object(difference.serving.as_deref()), object(difference.rebuilt.as_deref()));
    // A row of the history contains the position of its event.
    let offset = |row: &Map<String, Value>| row.get("log_offset").and_then(Value::as_i64);
    if let Some(offset) = rebuilt.as_ref().or(serving.as_ref()).and_then(offset) {
        return Ok(Some(Position { partition, offset: Offset(offset) }));
    }
    let (Ok(stream), Some(end)) = (Uuid::try_parse(&difference.key), to.get(&partition)) else {
        return Ok(None);
    };
    let Some(facts) = history(context, partition, stream, end.cursor.offset).await? else {
        return Ok(None);
    };
    let rows = unfold(connection, id, difference, &facts).await?;
    Ok(last_that_tells(&rows, serving.as_ref()).map(|nth| facts[nth].position))
}

fn object(row: Option<&str>) -> Option<Map<String, Value>> {
    serde_json::from_str(row?).ok()
}

/// The events of a stream before `end`; `None` if there are too many.
async fn history(
    context: &Context,
    partition: Partition,
    stream: Uuid,
    end: Offset,
) -> Result<Option<Vec<Fact>>, ReadError> {
    let (mut facts, mut cursor) = (Vec::new(), Cursor::START);
    let mut reader = BatchReader::open(&*context.log, partition, cursor).await?;
    while cursor.offset < end {
        let chunk = reader.next().await?;
        let at_end = chunk.at_end;
        let decoded = Decoded::of(chunk);
        cursor = decoded.cursor;
        let ours = |fact: &Fact| fact.record.stream.id == stream && fact.position.offset < end;
        facts.extend(decoded.facts.into_iter().filter(ours));
        if facts.len() > LONGEST {
            return Ok(None);
        }
        if at_end {
            break;
        }
    }
    Ok(Some(facts))
}

/// The row after each event, made in scratch tables that are rolled back afterwards.
async fn unfold(
    connection: &mut PgConnection,
    id: VersionId,
    Difference { table, key, .. }: &Difference,
    facts: &[Fact],
) -> Result<Vec<Option<Map<String, Value>>>, super::verify::Unknown> {
    let mut scratch = connection.begin().await?;
    let schema = format!("{}_scratch", id.schema());
    version::make_tables(&mut scratch, &schema, id.model.template()).await?;
    let writer = id.model.writer(&schema);
    let column = "select attname::text from pg_attribute \
                  where attrelid = to_regclass($1) and attnum = 1";
    let column: String = sqlx::query_scalar(column)
        .bind(format!("{schema}.{table}"))
        .fetch_one(&mut *scratch)
        .await?;
    let row = format!("select to_jsonb(t)::text from {schema}.{table} t where {column}::text = $1");
    let mut rows = Vec::new();
    for fact in facts {
        let mut one = Facts::default();
        one.add(std::slice::from_ref(fact), Offset::START);
        writer.apply(&mut scratch, &one).await?;
        let found: Option<String> = sqlx::query_scalar(AssertSqlSafe(row.clone()))
            .bind(key)
            .fetch_optional(&mut *scratch)
            .await?;
        rows.push(object(found.as_deref()));
    }
    scratch.rollback().await?;
    Ok(rows)
}

/// The index of the event that explains the difference. If the serving row equals an earlier state
/// of the rebuilt row, it is the first event after that state. Otherwise it is the last event that
/// changed one of the differing columns.
fn last_that_tells(
    rows: &[Option<Map<String, Value>>],
    serving: Option<&Map<String, Value>>,
) -> Option<usize> {
    let last = rows.last()?.as_ref()?;
    let Some(serving) = serving else { return Some(0) };
    if let Some(nth) = rows.iter().rposition(|row| row.as_ref() == Some(serving)) {
        return (nth + 1 < rows.len()).then_some(nth + 1);
    }
    let differ: Vec<&String> = last
        .iter()
        .filter(|(name, value)| serving.get(*name) != Some(value))
        .map(|it| it.0)
        .collect();
    let of = |nth: usize, name: &String| rows[nth].as_ref().and_then(|row| row.get(name));
    let gave =
        |nth: &usize| *nth == 0 || differ.iter().any(|name| of(*nth, name) != of(*nth - 1, name));
    if differ.is_empty() { None } else { (0..rows.len()).rev().find(gave) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(of: &[Value]) -> Vec<Option<Map<String, Value>>> {
        of.iter().map(|row| row.as_object().cloned()).collect()
    }

    #[test]
    fn the_event_that_tells_is_the_first_left_out_or_the_last_that_gave_what_differs() {
        let rows = rows(&[
            json!({"version": 1, "stock": 5, "name": "a"}),
            json!({"version": 2, "stock": 7, "name": "a"}),
            json!({"version": 3, "stock": 7, "name": "b"}),
        ]);
        let tells = |serving: Value| last_that_tells(&rows, serving.as_object());
        assert_eq!(tells(json!({"version": 1, "stock": 5, "name": "a"})), Some(1));
        assert_eq!(tells(json!({"version": 3, "stock": 9, "name": "b"})), Some(1));
        assert_eq!(tells(json!({"version": 3, "stock": 7, "name": "c"})), Some(2));
        assert_eq!(tells(json!({"version": 3, "stock": 7, "name": "b"})), None);
        assert_eq!(last_that_tells(&rows, None), Some(0));
        assert_eq!(last_that_tells(&[], None), None);
    }
}
