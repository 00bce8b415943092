//! The shop under load: the operations of clients, through the write side or over HTTP.

mod demo;
mod http;
mod process;

pub use http::Http;

use crate::args::Over;
use anyhow::{Result, ensure};
use commands::{Router, State, customer, customer::Register, product::Add};
use events::{Currency, Environment, Money, Sealed, StreamId, order::Line, seal::Key};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use uuid::Uuid;

/// Concurrent commands while the shop is being filled.
const FILLING: usize = 256;

/// Units of each product, so many that no run sells out.
const PLENTY: i64 = 1_000_000_000;

/// The longest time of an operation; after it the operation has failed.
const PATIENCE: Duration = Duration::from_mins(5);

/// The currency of the shop.
///
/// # Errors
/// Never.
pub fn currency() -> Result<Currency> {
    Ok("GBP".parse()?)
}

/// A shop with products and customers.
pub struct Shop {
    router: Router,
    environment: Arc<dyn Environment>,
    http: Option<Http>,
    keyed: bool,
    dice: Dice,
    products: Vec<Uuid>,
    customers: Vec<Uuid>,
    again: AtomicU64,
}

/// Pseudorandom numbers, the same in every run (`SplitMix64`).
#[derive(Default)]
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: usize) -> usize {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The number is below `sides`, so it fits.
        usize::try_from((z ^ (z >> 31)) % (sides.max(1) as u64)).unwrap_or_default()
    }

    fn pick(&self, of: &[Uuid]) -> Uuid {
        of[self.roll(of.len())]
    }
}

impl Shop {
    /// Fills a shop with products and customers, always through the write side.
    ///
    /// # Errors
    /// When a product or customer is not accepted.
    pub async fn fill(
        router: Router,
        environment: Arc<dyn Environment>,
        http: Option<Http>,
        keyed: bool,
        products: u32,
        customers: u32,
    ) -> Result<Self> {
        let ids = |count: u32| (0..count).map(|_| environment.uuid()).collect::<Vec<_>>();
        let (products, customers) = (ids(products), ids(customers));
        let dice = Dice::default();
        let again = AtomicU64::new(0);
        let shop = Self { router, environment, http, keyed, dice, products, customers, again };
        stream::iter(shop.products.iter().enumerate())
            .map(|(number, &id)| shop.add_product(number, id))
            .buffer_unordered(FILLING)
            .try_collect::<()>()
            .await?;
        stream::iter(shop.customers.iter().enumerate())
            .map(|(number, &id)| shop.register(number, id))
            .buffer_unordered(FILLING)
            .try_collect::<()>()
            .await?;
        Ok(shop)
    }

    async fn add_product(&self, number: usize, id: Uuid) -> Result<()> {
        let price = 399 + i64::try_from(number % 4_000)?;
        let add = Add {
            name: format!("The Book of Number {number}").into(),
            description: Some("A book like many others, for those who like many books.".into()),
            category: Some(format!("shelf {}", number % 20).into()),
            price: Money::new(price, currency()?),
            initial_stock: PLENTY,
        };
        let added = self.send(StreamId::product(id), commands::product::Command::from(add)).await?;
        ensure!(added.changed, "a product was not added");
        Ok(())
    }

    /// Adds a product to the catalogue that no order of this run uses.
    ///
    /// # Errors
    /// When the product is not added.
    pub async fn add(&self, add: Add) -> Result<()> {
        let stream = StreamId::product(self.environment.uuid());
        let added = self.send(stream, commands::product::Command::from(add)).await?;
        ensure!(added.changed, "a product was not added");
        Ok(())
    }

    /// Registers a customer, with a key that is not stored, because nothing here reads the names.
    async fn register(&self, number: usize, id: Uuid) -> Result<()> {
        let key = Key::random()?;
        let seal = |field, text: &str| Sealed::seal(&key, id, field, text);
        let register = Register {
            email_id: self.environment.uuid(),
            email: seal("email", &format!("reader.{number}@example.org"))?,
            first_name: seal("first_name", "Ada")?,
            last_name: seal("last_name", &format!("Reader the {number}th"))?,
        };
        let stream = StreamId::customer(id);
        self.send(stream, customer::Command::Register(register)).await?;
        let final_state = self.router.await_final(stream, PATIENCE).await?;
        let registered = final_state.is_some_and(|view| match view.state {
            State::Customer(it) => it.status() == Some(customer::Status::Registered),
            _ => false,
        });
        ensure!(registered, "a customer was not registered");
        Ok(())
    }

    /// How operations reach the program.
    pub fn over(&self) -> Over {
        if self.http.is_some() { Over::Http } else { Over::Process }
    }

    /// The HTTP client, if operations go over HTTP.
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref()
    }

    /// How many commands were sent again because they were certainly not applied.
    pub fn sent_again(&self) -> u64 {
        self.again.load(Relaxed)
    }

    /// A random product.
    pub fn any_product(&self) -> Uuid {
        self.dice.pick(&self.products)
    }

    /// The product of the `hot` workloads.
    pub fn hot_product(&self) -> Uuid {
        self.products[0]
    }

    /// Two different random products.
    pub fn two_products(&self) -> [Uuid; 2] {
        let first = self.dice.roll(self.products.len());
        let second = (first + 1 + self.dice.roll(self.products.len() - 1)) % self.products.len();
        [self.products[first], self.products[second]]
    }

    /// A random customer.
    pub fn any_customer(&self) -> Uuid {
        self.dice.pick(&self.customers)
    }

    /// A random number below `sides`.
    pub fn roll(&self, sides: usize) -> usize {
        self.dice.roll(sides)
    }

    /// Adds one unit to a product's stock: one command, one event.
    ///
    /// # Errors
    /// When the command does not succeed.
    pub async fn change_stock(&self, product: Uuid) -> Result<()> {
        match &self.http {
            Some(http) => http.change_stock(product, self.key()).await,
            None => self.change_stock_directly(product).await,
        }
    }

    /// Orders one unit of each of these products and waits for the confirmation. Returns the
    /// order's id.
    ///
    /// # Errors
    /// When the order is not confirmed within the time limit.
    pub async fn order(&self, products: &[Uuid]) -> Result<Uuid> {
        let customer = self.any_customer();
        let line = |&product_id| Line { product_id, quantity: 1 };
        let lines: Arc<[Line]> = products.iter().map(line).collect();
        match &self.http {
            Some(http) => http.order(customer, &lines, self.key()).await,
            None => self.order_directly(customer, lines).await,
        }
    }

    fn key(&self) -> Option<Uuid> {
        self.keyed.then(|| self.environment.uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_reach_every_side_and_no_other() {
        let dice = Dice::default();
        let mut seen = [0; 6];
        (0..600).for_each(|_| seen[dice.roll(6)] += 1);
        assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
    }
}
