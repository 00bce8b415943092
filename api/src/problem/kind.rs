//! Every kind of problem there is.

use axum::http::StatusCode;

/// Declares the kinds: name in the type URI, status, title, and the text of the page.
macro_rules! kinds {
    ($($variant:ident = $name:literal $status:ident $title:literal $text:literal;)+) => {
        /// A kind of problem: its `type` is `/problems/<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $title] $variant,)+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name at the end of the type URI.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// The title: the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// What it means and what to do, for its page.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

kinds! {
    InvalidBody = "invalid-body" BAD_REQUEST "The body does not have the shape it must have"
        "The body is not JSON, or a member is unknown, missing, given twice or of another JSON \
         type. `errors` lists what is wrong as `{\"pointer\", \"detail\"}`, the pointer being a \
         JSON Pointer into the body. Sending the same again gives the same answer.";
    InvalidParameter = "invalid-parameter" BAD_REQUEST
        "A query parameter, header, cursor or token is not valid"
        "`parameter` names it. A query parameter that the operation does not know is refused too, \
         and so is a cursor that was made for other filters: begin the list anew without it.";
    InvalidSignature = "invalid-signature" BAD_REQUEST "The notice is not signed as it must be"
        "`Stripe-Signature` is missing or malformed, is not that of this body under the endpoint's \
         secret, or is more than five minutes off. Nothing was done. If the gateway sent it: the \
         secret is another endpoint's, or something on the way changed the body.";
    Unauthenticated = "unauthenticated" UNAUTHORIZED "A valid token is needed"
        "The operation needs `Authorization: Bearer <JWT>`, and the token is missing, expired, \
         signed with another key or made for another audience. Get a new token.";
    PaymentDeclined = "payment-declined" PAYMENT_REQUIRED "The payment was declined"
        "The gateway declined the payment, and the order is `rejected`. The order exists: \
         `order_id` and `Location` name it, and `decline_code` is the gateway's word for it. \
         Order again with another means of payment and another idempotency key.";
    Forbidden = "forbidden" FORBIDDEN "The caller may not do this"
        "The token is valid, but its role does not allow the operation, or not for this resource.";
    NotFound = "not-found" NOT_FOUND "There is nothing here"
        "No resource with this id is visible to the caller, or the path does not exist. A path id \
         that is no UUID is answered in the same way.";
    CustomerNotFound = "customer-not-found" NOT_FOUND "The customer does not exist"
        "The customer that the order names does not exist, or was erased. When the order was \
         already written, `order_id` and `Location` name it, and it is `rejected`.";
    ProductNotFound = "product-not-found" NOT_FOUND "A product does not exist"
        "A product that the request names does not exist, or is no longer sold (discontinued); \
         `product_id` says which. When an order was already written, `order_id` and `Location` \
         name it, and it is `rejected`.";
    MethodNotAllowed = "method-not-allowed" METHOD_NOT_ALLOWED "The path does not take this method"
        "`Allow` lists the methods that the path takes.";
    RequestTimeout = "request-timeout" REQUEST_TIMEOUT "The request took too long to arrive"
        "The body did not arrive in time. Nothing was done.";
    EmailTaken = "email-taken" CONFLICT "The e-mail address belongs to another customer"
        "A customer with this e-mail address exists (letter case does not matter). Nothing was \
         changed.";
    InsufficientStock = "insufficient-stock" CONFLICT "Too little in stock"
        "`product_id` had only `available` units free of the `requested` ones, and the order is \
         `rejected`: `order_id` and `Location` name it. It holds no stock. Order again with less, \
         under another idempotency key.";
    StockBelowReserved = "stock-below-reserved" CONFLICT
        "The stock would fall below what is reserved"
        "The correction would leave fewer units `on_hand` than are `reserved` for orders. Nothing \
         was changed.";
    WishlistFull = "wishlist-full" CONFLICT "The wishlist is full"
        "The wishlist has as many items as it may have: `most`. Nothing was changed. Take \
         something off it first.";
    IllegalTransition = "illegal-transition" CONFLICT "The order cannot go there from where it is"
        "The order is `from` and was asked to become `to`, which its state does not allow. Read \
         it again before deciding what to do.";
    Expired = "expired" CONFLICT "The order was not decided in time"
        "The order was still pending at its deadline and is `rejected`: `order_id` and `Location` \
         name it. What it held is free again, and money that was taken goes back. Order again \
         under another idempotency key.";
    ProjectionConflict = "projection-conflict" CONFLICT
        "The versions of the read model do not allow this"
        "A rebuild is under way already, or there is no version to go back to or to drop, or it \
         has not all that the serving one has, or keeps streams back that it shows. The list of \
         versions tells which.";
    Gone = "gone" GONE "It existed, and was erased"
        "The personal data of this customer was erased for ever.";
    VersionMismatch = "version-mismatch" PRECONDITION_FAILED "The resource has another version"
        "`If-Match` names another version than the `current_version`: somebody changed the \
         resource since it was read. Nothing was changed. Read it again and decide anew.";
    BodyTooLarge = "body-too-large" PAYLOAD_TOO_LARGE "The body is too large"
        "A body may have 64 KiB at most.";
    UnsupportedMediaType = "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE
        "The body has another media type"
        "Send `Content-Type: application/json` (for PATCH also `application/merge-patch+json`).";
    ValidationFailed = "validation-failed" UNPROCESSABLE_ENTITY "A value is out of its bounds"
        "The body has the right shape but a value in it is not acceptable; `errors` lists what is \
         wrong as `{\"pointer\", \"detail\"}`. Nothing was changed, unless `order_id` names an \
         order: that one is `rejected`.";
    IdempotencyKeyReused = "idempotency-key-reused" UNPROCESSABLE_ENTITY
        "The idempotency key belongs to another request"
        "The same caller used this `Idempotency-Key` for the same method and path with another \
         body. Use a new key for a new request.";
    RateLimited = "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "The caller makes more requests a second than the server allows. Wait for the seconds in \
         `Retry-After`.";
    InternalError = "internal-error" INTERNAL_SERVER_ERROR "The server failed"
        "A fault of the server, which is in its log. With an `Idempotency-Key` the request can \
         safely be sent again.";
    CommandNotApplied = "command-not-applied" SERVICE_UNAVAILABLE "The command was not applied"
        "Nothing was changed: the part of the system that decides for this resource does not take \
         commands right now. Send the request again after `Retry-After`.";
    OutcomeUnknown = "outcome-unknown" SERVICE_UNAVAILABLE
        "It is unknown whether the command was applied"
        "The answer did not come in time; the command may have been applied or may still be. With \
         an `Idempotency-Key`, send the same request again: it is never applied twice. Without \
         one, read the resource (`id` names it) before you decide what to do.";
    ProjectionBehind = "projection-behind" SERVICE_UNAVAILABLE "The read model is not there yet"
        "The read model has not yet seen the events that `Min-Log-Position` names, or those that \
         an earlier answer under the same `Idempotency-Key` is made from. Ask again after \
         `Retry-After`, or allow more time with `Prefer: wait=N`.";
    ProjectionParked = "projection-parked" SERVICE_UNAVAILABLE
        "The read model keeps this resource back"
        "An event of this resource cannot be applied, so what the read model has of it is not \
         what it has become. `stream` names it. The resource itself is sound: commands go on, and \
         lists show it as it was before. An operator sees why at `GET /api/v1/admin/parked`, and \
         tries again there after a fix.";
    Unavailable = "unavailable" SERVICE_UNAVAILABLE "A part of the system does not answer"
        "Ask again after `Retry-After`.";
}

impl Kind {
    /// The general kind of a status.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_client_error() => Self::InvalidParameter,
            _ => Self::InternalError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_says_what_to_do() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!(!kind.status().is_success() && kind.text().len() > 20, "{kind:?}");
        }
    }
}
