//! What happens to a customer. Personal data is sealed with the customer's own key before it gets here.

use crate::{Sealed, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// Somebody wants to be a customer; the e-mail address is not theirs yet.
    RegistrationRequested(RegistrationRequested) = "RegistrationRequested" v 1;
    /// The e-mail address is theirs: they are a customer.
    Registered(Registered) = "CustomerRegistered" v 1;
    /// The e-mail address belongs to another customer.
    RegistrationRefused(RegistrationRefused) = "RegistrationRefused" v 1;
    /// The name or the standing is another.
    Changed(Changed) = "CustomerChanged" v 1;
    /// They want another e-mail address.
    EmailChangeRequested(EmailChangeRequested) = "EmailChangeRequested" v 1;
    /// The other address is theirs.
    EmailChanged(EmailChanged) = "EmailChanged" v 1;
    /// The other address belongs to another customer.
    EmailChangeRefused(EmailChangeRefused) = "EmailChangeRefused" v 1;
    /// An address that is theirs no more has been let go. Bookkeeping.
    EmailSettled(EmailSettled) = "EmailSettled" v 1;
    /// An order of theirs is under way.
    OrderOpened(OrderOpened) = "OrderOpened" v 1;
    /// An order of theirs is decided.
    OrderClosed(OrderClosed) = "OrderClosed" v 1;
    /// They are to be forgotten: nothing personal is theirs any more.
    Erased(Erased) = "CustomerErased" v 1;
    /// What was sealed of them can never be opened again. Bookkeeping.
    KeyDestroyed(KeyDestroyed) = "CustomerKeyDestroyed" v 1;
}

impl Event {
    /// Whether the customer as shown stays the same: neither their `ETag` nor `updated_at` move.
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

/// Registration was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationRequested {
    /// The stream id of the e-mail address: its keyed hash.
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
pub struct Registered {}

/// The registration came to nothing: the address is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationRefused {}

/// The profile after a change: all of it but the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
}

/// Another e-mail address was asked for. Holds the whole profile wanted: all of it comes true with the address, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRequested {
    /// Counts the claims of this customer; the registration was 1.
    pub attempt: u32,
    /// The stream id of the address wanted.
    pub email_id: Uuid,
    /// The address wanted.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop will treat them as VIP.
    pub vip: bool,
}

/// The address wanted is now theirs. Holds the whole profile after the change, so that it needs no history to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChanged {
    /// Which claim.
    pub attempt: u32,
    /// The stream id of the address.
    pub email_id: Uuid,
    /// The address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
}

/// The address wanted is another customer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRefused {
    /// Which claim.
    pub attempt: u32,
}

/// The claim is closed at the address's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmailSettled {
    /// Which claim.
    pub attempt: u32,
}

/// An order of this customer began. Says what the discounts of the order depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderOpened {
    /// The order.
    pub order_id: Uuid,
    /// Whether the customer is VIP at this moment.
    pub vip: bool,
    /// Whether there was no confirmed order and no open one.
    pub first: bool,
    /// After this moment of log time the order can no longer be opened here.
    pub not_after: Timestamp,
}

/// An order of this customer is decided. Written even when it was never opened here, and it can not be opened afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderClosed {
    /// The order.
    pub order_id: Uuid,
    /// Whether it was open here and is now confirmed: so true once an order, and the count of these is the customer's count
    /// of confirmed orders.
    pub confirmed: bool,
    /// Until this moment of log time the closed door is remembered.
    pub not_after: Timestamp,
}

/// The customer is erased. Their address is free from here on, and their key is owed to be destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Erased {}

/// The key is destroyed, and with it all copies of what it sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDestroyed {}
