//! Sales: sums by the hour of confirmation. A cancelled order is subtracted from the hour in which
//! it was confirmed.

mod apply;
mod gather;
mod query;

pub(crate) use apply::Sales;

use chrono::{DurationRound, TimeDelta};
use events::Timestamp;
use std::str::FromStr;
use uuid::Uuid;

/// The width of a bucket of a report. Buckets are in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// No bucket has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bucket is `hour` or `day`")]
pub struct UnknownBucket;

impl Bucket {
    /// The name in queries, which PostgreSQL understands, too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The width.
    pub fn width(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
        }
    }

    /// The beginning of the bucket that contains `time`. `None` outside the years 1677 to 2262.
    pub fn begin(self, time: Timestamp) -> Option<Timestamp> {
        time.duration_trunc(self.width()).ok()
    }
}

impl FromStr for Bucket {
    type Err = UnknownBucket;

    fn from_str(name: &str) -> Result<Self, UnknownBucket> {
        [Self::Hour, Self::Day].into_iter().find(|it| it.as_str() == name).ok_or(UnknownBucket)
    }
}

/// The sales in a bucket, in minor units of one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sold {
    /// The beginning of the bucket.
    pub bucket: Timestamp,
    /// Orders confirmed in it and not cancelled since.
    pub orders: i64,
    /// The sum of their totals.
    pub revenue: i64,
    /// The sum of their discounts.
    pub discounts: i64,
}

/// A product and how often it was sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestSeller {
    /// The product.
    pub product_id: Uuid,
    /// The product's name; `None` if this database does not have the product yet.
    pub name: Option<String>,
    /// Units in confirmed orders that were not cancelled since.
    pub units: i64,
}
