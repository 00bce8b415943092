//! What can be asked of a customer.

use events::{Sealed, Timestamp};
use uuid::Uuid;

/// What can be asked of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Become a customer.
    Register(Register),
    /// The e-mail address is theirs. Internal.
    ConfirmRegistration,
    /// The e-mail address is another's. Internal.
    RefuseRegistration,
    /// Change the profile.
    Change(Change),
    /// The address wanted is theirs. Internal.
    ConfirmEmail {
        /// Which claim.
        attempt: u32,
    },
    /// The address wanted is another's. Internal.
    RefuseEmail {
        /// Which claim.
        attempt: u32,
    },
    /// The claim is closed at the address's stream. Internal.
    SettleEmail {
        /// Which claim.
        attempt: u32,
    },
    /// An order of theirs begins. Internal.
    OpenOrder(OpenOrder),
    /// An order of theirs is decided. Internal.
    CloseOrder(CloseOrder),
    /// Be forgotten.
    Erase,
    /// The key is destroyed. Internal.
    RecordKeyDestroyed,
}

/// Become a customer.
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

/// Change the profile; `None` keeps what is. With another address all of it waits until the address is theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The stream id of the address, and the address.
    pub email: Option<(Uuid, Sealed)>,
    /// Given name.
    pub first_name: Option<Sealed>,
    /// Family name.
    pub last_name: Option<Sealed>,
    /// Whether the shop treats them as VIP.
    pub vip: Option<bool>,
}

/// An order begins. Asked again it changes nothing: the first answer stands in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// The order.
    pub order_id: Uuid,
    /// Refused after this moment of log time.
    pub not_after: Timestamp,
}

/// An order is decided, whether it was opened here or not: it can never be opened here again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseOrder {
    /// The order.
    pub order_id: Uuid,
    /// Whether it was confirmed.
    pub confirmed: bool,
    /// The `not_after` of the order's open: until then the close is remembered.
    pub not_after: Timestamp,
}

macro_rules! into_command {
    ($($variant:ident),+) => {
        $(impl From<$variant> for Command {
            fn from(command: $variant) -> Self { Self::$variant(command) }
        })+
    };
}
into_command!(Register, Change, OpenOrder, CloseOrder);
