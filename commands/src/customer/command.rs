//! The commands of a customer.

use crate::{OrderLimits, aggregate::into_command};
use events::{Sealed, Timestamp};
use uuid::Uuid;

/// A command for a customer. Internal commands are sent by the program only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Register as a customer.
    Register(Register),
    /// Record that the e-mail address is now the customer's. Internal.
    ConfirmRegistration {
        /// Whether an earlier customer ordered under the address.
        returning: bool,
    },
    /// Record that the e-mail address belongs to another customer. Internal.
    RefuseRegistration,
    /// Change the profile.
    Change(Change),
    /// Record that the new address is now the customer's. Internal.
    ConfirmEmail {
        /// The number of the change.
        attempt: u32,
        /// Whether another customer ordered under the address.
        returning: bool,
    },
    /// Record that the new address belongs to another customer. Internal.
    RefuseEmail {
        /// The number of the change.
        attempt: u32,
    },
    /// Record that the address's stream has released the address. Internal.
    RecordEmailReleased {
        /// The number of the change.
        attempt: u32,
    },
    /// Record that one of the customer's orders begins. Internal.
    OpenOrder(OpenOrder),
    /// Record how one of the customer's orders was decided. Internal.
    CloseOrder(CloseOrder),
    /// Erase the customer's personal data.
    Erase,
    /// Record that the customer's key has been destroyed. Internal.
    RecordKeyDestroyed,
}

/// Register as a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The stream id of the e-mail address: its keyed hash.
    pub email_id: Uuid,
    /// The address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
}

/// Change the profile; `None` keeps the current value. If the address changes, the whole change
/// waits until the address is the customer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The stream id of the new address, and the address.
    pub email: Option<(Uuid, Sealed)>,
    /// Given name.
    pub first_name: Option<Sealed>,
    /// Family name.
    pub last_name: Option<Sealed>,
    /// Whether the shop treats the customer as VIP.
    pub vip: Option<bool>,
}

/// Record that an order begins. Repeating the command changes nothing; the first answer is in the
/// state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// The order.
    pub order_id: Uuid,
    /// The command is refused after this moment of log time.
    pub not_after: Timestamp,
    /// How much the customer may have under way.
    pub limits: OrderLimits,
}

/// Record how an order was decided, whether or not it was opened here. Afterwards it can never be
/// opened here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseOrder {
    /// The order.
    pub order_id: Uuid,
    /// Whether it was confirmed.
    pub confirmed: bool,
    /// Whether the gateway declined its payment.
    pub declined: bool,
    /// The `not_after` of the order's open; the close is remembered until then.
    pub not_after: Timestamp,
}

into_command!(Register, Change, OpenOrder, CloseOrder);
