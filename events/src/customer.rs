//! Events of a customer. Personal data in them is encrypted with the customer's own key.

use crate::{Sealed, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// A registration was requested; the e-mail address is not taken yet.
    RegistrationRequested(RegistrationRequested) = "RegistrationRequested" v 1;
    /// The e-mail address was free: the customer is registered.
    Registered(Registered) = "CustomerRegistered" v 2;
    /// The registration failed: the e-mail address belongs to another customer.
    RegistrationRefused(RegistrationRefused) = "RegistrationRefused" v 1;
    /// The name or the VIP status changed.
    Changed(Changed) = "CustomerChanged" v 1;
    /// The customer asked for another e-mail address.
    EmailChangeRequested(EmailChangeRequested) = "EmailChangeRequested" v 1;
    /// The customer got the other address.
    EmailChanged(EmailChanged) = "EmailChanged" v 2;
    /// The change failed: the other address belongs to another customer.
    EmailChangeRefused(EmailChangeRefused) = "EmailChangeRefused" v 1;
    /// The stream of an address that the customer no longer uses has released it. Bookkeeping.
    EmailSettled(EmailSettled) = "EmailSettled" v 1;
    /// An order of the customer is in progress.
    OrderOpened(OrderOpened) = "OrderOpened" v 1;
    /// An order of the customer is confirmed or rejected.
    OrderClosed(OrderClosed) = "OrderClosed" v 2;
    /// The customer is erased; the key of the personal data is still to be destroyed.
    Erased(Erased) = "CustomerErased" v 1;
    /// The key is destroyed: the customer's personal data is unreadable for ever. Bookkeeping.
    KeyDestroyed(KeyDestroyed) = "CustomerKeyDestroyed" v 1;
}

impl Event {
    /// Whether the event leaves the customer, as the API shows it, unchanged: its `ETag` and
    /// `updated_at` stay.
    pub fn is_bookkeeping(&self) -> bool {
        match self {
            Self::RegistrationRequested(_)
            | Self::Registered(_)
            | Self::RegistrationRefused(_)
            | Self::Changed(_)
            | Self::EmailChanged(_)
            | Self::Erased(_) => false,
            Self::OrderClosed(closed) => !closed.confirmed,
            Self::EmailChangeRequested(_)
            | Self::EmailChangeRefused(_)
            | Self::EmailSettled(_)
            | Self::OrderOpened(_)
            | Self::KeyDestroyed(_) => true,
        }
    }
}

/// A registration was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationRequested {
    /// The id of the address's stream: a keyed hash of the address.
    pub email_id: Uuid,
    /// The address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
}

/// The customer is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// Whether an earlier customer ordered under the address; `false` for events of version 1.
    pub returning: bool,
}

/// The registration was refused: the address belongs to another customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationRefused {}

/// The whole profile after a change, without the e-mail address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
}

/// The customer asked for another e-mail address. Holds the whole requested profile: all of it
/// takes effect together with the address, or none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRequested {
    /// Number of this request for an address among those of the customer; the registration is 1.
    pub attempt: u32,
    /// The id of the requested address's stream.
    pub email_id: Uuid,
    /// The requested address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop will treat them as VIP.
    pub vip: bool,
}

/// The customer got the requested address. Holds the whole profile after the change, so that a
/// reader needs no earlier events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChanged {
    /// Number of the customer's request for an address.
    pub attempt: u32,
    /// The id of the address's stream.
    pub email_id: Uuid,
    /// The address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
    /// Whether another customer ordered under the address; `false` for events of version 1.
    pub returning: bool,
}

/// The change was refused: the requested address belongs to another customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRefused {
    /// Number of the customer's request for an address.
    pub attempt: u32,
}

/// The address's stream has recorded that this request is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailSettled {
    /// Number of the customer's request for an address.
    pub attempt: u32,
}

/// An order of this customer began. Holds the facts that the order's discounts depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderOpened {
    /// The order.
    pub order_id: Uuid,
    /// Whether the customer is VIP at this moment.
    pub vip: bool,
    /// Whether the customer had no confirmed order and no other open one, and nobody who had one of
    /// the customer's addresses before had ordered.
    pub first: bool,
    /// After this moment of log time the customer's stream no longer opens the order.
    pub not_after: Timestamp,
}

/// An order of this customer is confirmed or rejected. Written even if the order was never opened
/// here; it cannot be opened afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderClosed {
    /// The order.
    pub order_id: Uuid,
    /// Whether the order was open here and is now confirmed. True at most once per order, so the
    /// number of such events is the customer's number of confirmed orders.
    pub confirmed: bool,
    /// Whether the gateway declined its payment; `false` for events of version 1.
    pub declined: bool,
    /// Until this moment of log time the stream remembers the close; afterwards an open would be
    /// too late anyway.
    pub not_after: Timestamp,
}

/// The customer is erased. The e-mail address is free again, and the shop owes the destruction of
/// the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Erased {}

/// The customer's key is destroyed. No copy of the data encrypted with it can be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDestroyed {}
