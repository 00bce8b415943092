//! `orderlog migrate`.

use super::access::ReadSide;
use orderlog::config::Config;

pub async fn run(config: &Config) -> anyhow::Result<()> {
    // Access to the read models brings the database up to date.
    ReadSide::open(config).await?.close().await?;
    super::print("the database is up to date")?;
    Ok(())
}
