//! `GET /reports/sales`.

use crate::{
    App,
    auth::{Access, Caller, Role},
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{self, Found, read_joined},
    validate::MoneyBody,
};
use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use events::{Currency, Money};
use projections::{
    ReadModel,
    sales::{BestSeller, Bucket, Sold},
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most buckets of a report.
const MAX_BUCKETS: i32 = 1_000;

/// Buckets of a report without `from`.
const DEFAULT_BUCKETS: i32 = 30;

/// Products in the list of best sellers.
const BEST: u32 = 20;

/// A sales report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SalesReport)]
pub struct SalesReportBody {
    /// Beginning of the first bucket.
    pub from: DateTime<Utc>,
    /// End of the last bucket.
    pub to: DateTime<Utc>,
    /// Every bucket in between, in order of time.
    pub items: Vec<SalesBucketBody>,
    /// The products with the most units sold in the whole time, best first.
    pub best_sellers: Vec<BestSellerBody>,
}

/// The orders that were confirmed within a bucket and not cancelled since.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = SalesBucket)]
pub struct SalesBucketBody {
    /// Beginning of the bucket.
    pub bucket: DateTime<Utc>,
    /// Number of orders.
    pub orders: i64,
    /// Sum of their totals.
    #[schema(value_type = MoneyBody)]
    pub revenue: Money,
    /// Sum of their discounts.
    #[schema(value_type = MoneyBody)]
    pub discounts: Money,
}

/// A product in the list of best sellers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BestSeller)]
pub struct BestSellerBody {
    /// Id of the product.
    pub product_id: Uuid,
    /// Current name of the product; null while the catalogue's read model is behind.
    #[schema(required, example = "The Left Hand of Darkness")]
    pub name: Option<String>,
    /// Units in orders that were confirmed and not cancelled since.
    pub units: i64,
}

/// Report the sales of a period.
///
/// Orders count at the time they were confirmed. Cancelled orders are left out.
#[utoipa::path(
    get,
    path = "/api/v1/reports/sales",
    tag = "reports",
    operation_id = "report_sales",
    params(
        (
            "from" = Option<DateTime<Utc>>, Query,
            description = "Beginning of the period, rounded down to a whole bucket; 30 buckets \
                           before its end if absent"
        ),
        (
            "to" = Option<DateTime<Utc>>, Query,
            description = "End of the period (exclusive), rounded up to a whole bucket; now if \
                           absent"
        ),
        (
            "bucket" = Option<String>, Query,
            description = "Length of a bucket: `day` or `hour`, in UTC; `day` if absent. A report \
                           has at most 1,000 buckets"
        ),
    ),
    responses((status = 200, description = "The report.", body = SalesReportBody)),
    security(("bearer" = ["staff"])),
)]
pub async fn sales(
    State(app): State<Arc<App>>,
    caller: Caller,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    caller.require(Access::AtLeast(Role::Staff))?;
    let range = Range::of(&mut params, app.environment.now())?;
    params.end()?;
    let currency = app.settings.currency;
    let (span, bucket) = ((range.from, range.to), range.bucket);
    let models = [ReadModel::Sales, ReadModel::Products];
    let found = read_joined(app.reads()?, &models, &freshness, |reads| async move {
        let sold = reads.sales(span, bucket, currency).await?;
        Ok((sold, reads.best_sellers(span, BEST).await?))
    })
    .await?;
    let (sold, best) = found.value;
    let value = range.report(sold, best, currency);
    Ok(query::list(&freshness, Found { value, position: found.position }))
}

/// The period of a report, in whole buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    bucket: Bucket,
}

impl Range {
    fn of(params: &mut Params, now: DateTime<Utc>) -> Result<Self, Problem> {
        let bucket = params.read("bucket", "day or hour")?.unwrap_or(Bucket::Day);
        let to = params.moment("to")?.unwrap_or(now);
        let from = params.moment("from")?;
        let width = bucket.width();
        let invalid = |detail| Problem::invalid_parameter("from", detail);
        let begin = |time| {
            bucket.begin(time).ok_or_else(|| invalid("is too far in the past or the future"))
        };
        let last = begin(to)?;
        let end = if last == to { to } else { last + width };
        let from = match from {
            Some(from) => begin(from)?,
            None => end - width * DEFAULT_BUCKETS,
        };
        if from >= end {
            return Err(invalid("must be before to"));
        }
        if end - from > width * MAX_BUCKETS {
            return Err(invalid("must be within 1000 buckets of to"));
        }
        Ok(Self { from, to: end, bucket })
    }

    fn report(self, sold: Vec<Sold>, best: Vec<BestSeller>, currency: Currency) -> SalesReportBody {
        let mut sold: BTreeMap<DateTime<Utc>, Sold> =
            sold.into_iter().map(|sold| (sold.bucket, sold)).collect();
        let money = |amount| Money::new(amount, currency);
        let bucket = |begin: DateTime<Utc>| {
            let none = Sold { bucket: begin, orders: 0, revenue: 0, discounts: 0 };
            let Sold { bucket, orders, revenue, discounts } = sold.remove(&begin).unwrap_or(none);
            SalesBucketBody { bucket, orders, revenue: money(revenue), discounts: money(discounts) }
        };
        let width: TimeDelta = self.bucket.width();
        let begins = std::iter::successors(Some(self.from), |begin| Some(*begin + width));
        let items = begins.take_while(|begin| *begin < self.to).map(bucket).collect();
        let best_sellers = best.into_iter().map(|BestSeller { product_id, name, units }| {
            BestSellerBody { product_id, name, units }
        });
        SalesReportBody {
            from: self.from,
            to: self.to,
            items,
            best_sellers: best_sellers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn of(query: &str) -> Result<Range, Problem> {
        Range::of(&mut Params::of(query).unwrap(), at("2026-11-20T12:34:56Z"))
    }

    #[test]
    fn a_period_is_widened_to_whole_buckets() {
        let range = of("from=2026-11-18T23:59:59Z&to=2026-11-20T00:00:00Z").unwrap();
        assert_eq!(range.from, at("2026-11-18T00:00:00Z"));
        assert_eq!(range.to, at("2026-11-20T00:00:00Z"));
        let range = of("from=2026-11-20T01:59:59%2B01:00&to=2026-11-20T03:00:01Z&bucket=hour");
        let range = range.unwrap();
        assert_eq!(range.from, at("2026-11-20T00:00:00Z"));
        assert_eq!(range.to, at("2026-11-20T04:00:00Z"));
    }

    #[test]
    fn a_period_without_bounds_ends_now() {
        let range = of("").unwrap();
        assert_eq!(range.from, at("2026-10-22T00:00:00Z"));
        assert_eq!(range.to, at("2026-11-21T00:00:00Z"));
        assert_eq!(of("bucket=hour").unwrap().from, at("2026-11-19T07:00:00Z"));
    }

    #[test]
    fn a_period_has_at_most_1000_buckets() {
        assert!(of("from=2026-01-01T00:00:00Z&to=2028-09-27T00:00:00Z").is_ok());
        for query in [
            "from=2026-01-01T00:00:00Z&to=2028-09-27T00:00:01Z",
            "from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
            "from=2027-01-01T00:00:00Z",
            "from=0001-01-01T00:00:00Z&to=0001-01-02T00:00:00Z",
            "to=9999-12-31T23:59:59Z",
            "bucket=week",
            "from=yesterday",
        ] {
            assert_eq!(of(query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }

    #[test]
    fn a_report_has_every_bucket_of_its_period() {
        let range = of("from=2026-11-18T00:00:00Z&to=2026-11-20T00:00:00Z").unwrap();
        let bucket = at("2026-11-19T00:00:00Z");
        let sold = Sold { bucket, orders: 2, revenue: 1_500, discounts: 100 };
        let report = range.report(vec![sold], vec![], "GBP".parse().unwrap());
        let orders: Vec<_> = report.items.iter().map(|it| (it.bucket, it.orders)).collect();
        assert_eq!(orders, [(at("2026-11-18T00:00:00Z"), 0), (bucket, 2)]);
        assert_eq!(report.items[1].revenue.amount, 1_500);
    }
}
