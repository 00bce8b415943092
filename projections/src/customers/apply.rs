//! Events to rows.

use crate::streams::{Head, StreamRow, Table, stream_row};
use events::{Sealed, Timestamp, customer};
use uuid::Uuid;

/// The `customers` table of one version.
pub(crate) type Customers = Table<CustomerRow>;

stream_row! {
    CustomerRow in "customers", from Customer(customer::Event), shown as ShownCustomer {
        shown {
            customer_id: Uuid,
            shown_version: i64,
            email_id: Uuid,
            email: String,
            first_name: String,
            last_name: String,
            vip: bool,
            order_count: i64,
            created_at: Timestamp,
            updated_at: Timestamp,
        }
        hidden {
            partition: i32,
            version: i64,
            status: String,
        }
    }
}

/// The stream has only order events: the customer never registered.
const UNKNOWN: &str = "unknown";
const PENDING: &str = "pending";
/// The view shows rows with this status.
const REGISTERED: &str = "registered";
const REFUSED: &str = "refused";
/// The view shows rows with this status, too: an erased customer stays visible, without personal
/// data.
const ERASED: &str = "erased";

impl StreamRow for CustomerRow {
    /// Any event may be the first: an order that names an unknown customer is still closed at that
    /// customer's stream.
    fn begin(head: Head, _: &customer::Event) -> Option<Self> {
        Some(Self {
            customer_id: head.id,
            partition: head.partition,
            version: 0,
            shown_version: 0,
            status: UNKNOWN.to_owned(),
            email_id: Uuid::nil(),
            email: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            vip: false,
            order_count: 0,
            created_at: head.time,
            updated_at: head.time,
        })
    }

    fn apply(&mut self, event: &customer::Event) {
        use customer::Event as E;
        match event {
            E::RegistrationRequested(asked) => {
                PENDING.clone_into(&mut self.status);
                self.address(asked.email_id, &asked.email);
                self.profile(&asked.first_name, &asked.last_name, false);
            }
            E::Registered(_) => REGISTERED.clone_into(&mut self.status),
            E::RegistrationRefused(_) => REFUSED.clone_into(&mut self.status),
            E::Changed(new) => self.profile(&new.first_name, &new.last_name, new.vip),
            E::EmailChanged(new) => {
                self.address(new.email_id, &new.email);
                self.profile(&new.first_name, &new.last_name, new.vip);
            }
            E::Erased(_) => self.erase(),
            E::OrderClosed(closed) => self.order_count += i64::from(closed.confirmed),
            E::EmailChangeRequested(_)
            | E::EmailChangeRefused(_)
            | E::EmailSettled(_)
            | E::OrderOpened(_)
            | E::KeyDestroyed(_) => {}
        }
    }
}

impl CustomerRow {
    fn address(&mut self, email_id: Uuid, email: &Sealed) {
        self.email_id = email_id;
        email.as_str().clone_into(&mut self.email);
    }

    fn profile(&mut self, first_name: &Sealed, last_name: &Sealed, vip: bool) {
        first_name.as_str().clone_into(&mut self.first_name);
        last_name.as_str().clone_into(&mut self.last_name);
        self.vip = vip;
    }

    /// Clears everything but the key and the bookkeeping.
    fn erase(&mut self) {
        ERASED.clone_into(&mut self.status);
        self.email_id = Uuid::nil();
        self.vip = false;
        for text in [&mut self.email, &mut self.first_name, &mut self.last_name] {
            text.clear();
        }
    }
}
