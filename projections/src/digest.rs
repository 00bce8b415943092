//! What tables that should say the same are compared by.

use sqlx::PgConnection;

/// The tables of a schema.
pub(crate) async fn tables(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let query = "select relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where nspname = $1 and relkind = 'r' order by 1";
    sqlx::query_scalar(query).bind(schema).fetch_all(connection).await
}

/// The hash of a row `t` of a table, as an expression: of its columns' own hashes, and of the text of those whose type has
/// none. A quarter of what the hash of the whole row as text costs.
///
/// `PostgreSQL` adds the columns' hashes up with a factor each, so a sum over rows would not see two values change places
/// between rows. It sees it in the hash of that.
pub(crate) async fn row_hash(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> Result<String, sqlx::Error> {
    let columns: String = sqlx::query_scalar(
        "select string_agg('t.' || quote_ident(attname) || \
         case when exists (select from pg_opclass c join pg_am m on m.oid = c.opcmethod \
         where m.amname = 'hash' and c.opcdefault and c.opcintype = a.atttypid) \
         then '' else '::text' end, ', ' order by attnum) \
         from pg_attribute a where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
    )
    .bind(format!("{schema}.{table}"))
    .fetch_one(connection)
    .await?;
    Ok(format!("hashint8extended(hash_record_extended(row({columns}), 0), 0)"))
}
