//! Rows to answers.

use super::{Product, apply::ShownProduct};
use crate::{
    Page, QueryError, ReadModel, ReadModels,
    projection::unreadable,
    streams::{money, newest_first},
};
use events::{Currency, StreamId, Timestamp};
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// The products that a list shows, of those that are sold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Products of this category.
    pub category: Option<String>,
}

/// The last product of a page; the next page begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When that product was added.
    pub created_at: Timestamp,
    /// The id of that product.
    pub product_id: Uuid,
}

impl ReadModels {
    /// The product with this id, sold or not.
    ///
    /// # Errors
    /// When the database does not answer, or the product is parked.
    pub async fn product(&self, id: Uuid) -> Result<Option<Product>, QueryError> {
        self.refuse_parked(ReadModel::Products, StreamId::product(id)).await?;
        self.ask(move |pool| async move {
            let mut query = ShownProduct::select();
            query.push(" where product_id = ").push_bind(id);
            let row: Option<ShownProduct> = query.build_query_as().fetch_optional(&pool).await?;
            row.map(Product::try_from).transpose()
        })
        .await
    }

    /// The version of the product with this id, as in its `ETag`. This is enough to answer that
    /// nothing has changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn product_version(&self, id: Uuid) -> Result<Option<u64>, QueryError> {
        // For a parked product, the caller goes on to read the whole product, which reports the
        // error.
        if self.refuse_parked(ReadModel::Products, StreamId::product(id)).await.is_err() {
            return Ok(None);
        }
        self.ask(move |pool| async move {
            let version = "select shown_version from read.products where product_id = $1";
            let version: Option<i64> =
                sqlx::query_scalar(version).bind(id).fetch_optional(&pool).await?;
            Ok(version.map(i64::unsigned_abs))
        })
        .await
    }

    /// A currency other than this one in which a product is priced, if there is any. Looks at every
    /// product, so it is for the start only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn other_currency(&self, currency: Currency) -> Result<Option<String>, QueryError> {
        self.ask(move |pool| async move {
            let other = "select currency from read.products where currency <> $1 limit 1";
            Ok(sqlx::query_scalar(other).bind(currency.code()).fetch_optional(&pool).await?)
        })
        .await
    }

    /// The products with these ids, sold or not. Unknown ids are left out.
    pub(crate) async fn products_by_id(
        &self,
        ids: Vec<Uuid>,
    ) -> Result<FxHashMap<Uuid, Product>, QueryError> {
        if ids.is_empty() {
            return Ok(FxHashMap::default());
        }
        self.ask(move |pool| async move {
            let mut query = ShownProduct::select();
            query.push(" where product_id = any(").push_bind(ids).push(")");
            let rows: Vec<ShownProduct> = query.build_query_as().fetch_all(&pool).await?;
            let product = |row: ShownProduct| Ok((row.product_id, Product::try_from(row)?));
            rows.into_iter().map(product).collect()
        })
        .await
    }

    /// The products that match `filter`, newest first, after the product `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn products(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Product, Cursor>, QueryError> {
        let mut query = ShownProduct::select();
        query.push(" where not discontinued");
        if let Some(category) = &filter.category {
            query.push(" and category = ").push_bind(category);
        }
        let after = after.map(|after| (after.created_at, after.product_id));
        let list = move |pool| async move {
            let order = ["created_at", "product_id"];
            newest_first::<ShownProduct, _>(&pool, query, order, after, limit).await
        };
        let items = self.ask(list).await?;
        let cursor = |product: &Product| Cursor {
            created_at: product.created_at,
            product_id: product.product_id,
        };
        Ok(Page::of(items, limit, cursor))
    }
}

impl TryFrom<ShownProduct> for Product {
    type Error = QueryError;

    fn try_from(row: ShownProduct) -> Result<Self, QueryError> {
        let price = money(row.price, &row.currency);
        Ok(Self {
            product_id: row.product_id,
            name: row.name,
            description: row.description,
            category: row.category,
            price: price.ok_or_else(|| unreadable("products", "currency"))?,
            on_hand: row.on_hand,
            reserved: row.reserved,
            shipped: row.shipped,
            discontinued: row.discontinued,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.shown_version.unsigned_abs(),
        })
    }
}
