//! Hashes for the comparison of tables that should have the same rows.

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

/// An SQL expression for the hash of a row `t` of a table. It combines the hashes of the columns; a
/// column whose type has no hash function is hashed as text. This costs a quarter of hashing the
/// whole row as text.
///
/// `PostgreSQL` combines the hashes of the columns as a linear sum. If rows were compared by the
/// sum of these hashes, two values that changed places between two rows would go unnoticed. The
/// expression hashes the combined hash once more, so that the sum over the rows differs.
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
