//! Every kind of problem.

use axum::http::StatusCode;

/// Declares the kinds: name in the type URI, status, title, what it means, what to do about it.
macro_rules! kinds {
    ($($variant:ident = $name:literal $status:ident $title:literal
        $meaning:literal $action:literal;)+) => {
        /// A kind of problem: its `type` is `/problems/<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $title] $variant,)+
        }

        impl Kind {
            /// All kinds, by status.
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

            /// What it means, for its page. Back-ticks mark code.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// What the caller should do, for its page. Back-ticks mark code.
            pub fn action(self) -> &'static str {
                match self { $(Self::$variant => $action,)+ }
            }
        }
    };
}

kinds! {
    InvalidBody = "invalid-body" BAD_REQUEST "Malformed request body"
        "The body is not JSON, or a member is unknown, missing, repeated or of the wrong JSON \
         type. `errors` lists each fault as `{\"pointer\", \"detail\"}`, where the pointer is a \
         JSON Pointer into the body."
        "Correct the body. Sending the same body again gives the same answer.";
    InvalidParameter = "invalid-parameter" BAD_REQUEST "Invalid parameter"
        "A query parameter, header, cursor or token has an invalid value, or the operation does \
         not know the query parameter. `parameter` names it. A cursor is invalid with other \
         filters than those it was made for."
        "Correct the parameter. After a change of filters, read the list from its beginning, \
         without a cursor.";
    InvalidSignature = "invalid-signature" BAD_REQUEST "Invalid webhook signature"
        "`Stripe-Signature` is missing or malformed, does not match this body and the secret of \
         the endpoint, or is more than five minutes off. Nothing was changed."
        "If Stripe sent the notice, check that `STRIPE_WEBHOOK_SECRET` belongs to this endpoint \
         and that no proxy changes the body.";
    Unauthenticated = "unauthenticated" UNAUTHORIZED "Authentication required"
        "The operation needs `Authorization: Bearer <JWT>`. The token is missing, expired, \
         signed with an unknown key or made for another audience."
        "Get a new token and send the request again.";
    PaymentDeclined = "payment-declined" PAYMENT_REQUIRED "Payment declined"
        "The payment gateway declined the payment, and the order is `rejected`. The order \
         exists: `order_id` and `Location` name it. `decline_code` is the reason that the \
         gateway gave."
        "Place a new order with another payment method and another `Idempotency-Key`.";
    Forbidden = "forbidden" FORBIDDEN "Permission denied"
        "The token is valid, but its role does not allow this operation, or does not allow it \
         on this resource."
        "Use a token with the required role. The API documentation names the role of each \
         operation.";
    NotFound = "not-found" NOT_FOUND "Not found"
        "The path does not exist, or the caller can see no resource with this id. An id in the \
         path that is not a UUID gives the same answer."
        "Check the path and the id, and use a token that may see the resource.";
    CustomerNotFound = "customer-not-found" NOT_FOUND "Customer not found"
        "The customer of the order does not exist or was erased. If the order was already \
         written, it is `rejected`, and `order_id` and `Location` name it."
        "Correct `customer_id` or register the customer, then place a new order with another \
         `Idempotency-Key`.";
    ProductNotFound = "product-not-found" NOT_FOUND "Product not found"
        "A product in the request does not exist or is discontinued. `product_id` names it. If \
         an order was already written, it is `rejected`, and `order_id` and `Location` name it."
        "Leave the product out or choose another one, and send the new request with another \
         `Idempotency-Key`.";
    MethodNotAllowed = "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed"
        "The path exists but does not support this method."
        "Use one of the methods in the `Allow` header.";
    RequestTimeout = "request-timeout" REQUEST_TIMEOUT "Request timeout"
        "The body of the request did not arrive in time. Nothing was changed."
        "Send the request again.";
    EmailTaken = "email-taken" CONFLICT "E-mail address already in use"
        "Another customer has this e-mail address. Upper and lower case make no difference. \
         Nothing was changed."
        "Use another address.";
    OpenOrders = "open-orders" CONFLICT "Orders still to be shipped"
        "The customer has orders that are still to be shipped, and erasing the customer destroys \
         their shipping addresses. `order_ids` names the newest of them. Nothing was changed."
        "Ship or cancel the orders first, or send the request again with `?confirm=open-orders`.";
    InsufficientStock = "insufficient-stock" CONFLICT "Insufficient stock"
        "The order needs `requested` units of the product `product_id`, and only `available` \
         are free. The order is `rejected` and reserves nothing. `order_id` and `Location` name \
         it."
        "Place a new order for fewer units, with another `Idempotency-Key`.";
    StockBelowReserved = "stock-below-reserved" CONFLICT "Stock below reserved quantity"
        "The correction would leave fewer units `on_hand` than are `reserved` for orders. \
         Nothing was changed."
        "Correct the stock by fewer units, or cancel orders to free their units first.";
    WishlistFull = "wishlist-full" CONFLICT "Wishlist full"
        "The wishlist already has the maximum number of items, `most`. Nothing was changed."
        "Remove an item, then add the new one.";
    IllegalTransition = "illegal-transition" CONFLICT "Status change not allowed"
        "The order has the status `from`, and an order with this status cannot change to `to`. \
         Nothing was changed."
        "Read the order again before you decide what to do.";
    Expired = "expired" CONFLICT "Order expired"
        "The order was still pending at its deadline and is now `rejected`. `order_id` and \
         `Location` name it. Its stock is free again, and a payment that was taken is refunded."
        "Place a new order with another `Idempotency-Key`.";
    TooManyOpenOrders = "too-many-open-orders" CONFLICT "Too many open orders"
        "The customer has as many orders that are still `pending` as the shop allows. Nothing was \
         changed, unless `order_id` names an order: that order is `rejected`."
        "Wait until an earlier order is confirmed or rejected, or cancel one. Then place a new \
         order with another `Idempotency-Key`.";
    TooManyDeclinedPayments = "too-many-declined-payments" CONFLICT "Too many declined payments"
        "The payment gateway declined as many payments of this customer within an hour as the shop \
         allows. Nothing was changed, unless `order_id` names an order: that order is `rejected`."
        "Place a new order later, with another `Idempotency-Key`.";
    ProjectionConflict = "projection-conflict" CONFLICT "Read model versions conflict"
        "The versions of the read model do not allow the operation. A rebuild is already under \
         way, there is no version to roll back to or to drop, or the other version is behind \
         the serving one or keeps back streams that the serving one shows."
        "Look at the versions with `GET /api/v1/admin/projections`. Wait until the rebuild \
         ends, or cancel it.";
    Gone = "gone" GONE "Customer erased"
        "The personal data of this customer was erased permanently."
        "Remove the customer from your own records. Sending the request again gives the same \
         answer.";
    VersionMismatch = "version-mismatch" PRECONDITION_FAILED "Version mismatch"
        "`If-Match` names another version than `current_version`: the resource was changed \
         after you read it. The request changed nothing."
        "Read the resource again, decide again, and send its new `ETag` as `If-Match`.";
    BodyTooLarge = "body-too-large" PAYLOAD_TOO_LARGE "Request body too large"
        "The body of the request is larger than 64 KiB."
        "Send a smaller body.";
    UnsupportedMediaType = "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Unsupported media type"
        "The operation does not accept the `Content-Type` of the body."
        "Send `Content-Type: application/json` (for PATCH also `application/merge-patch+json`).";
    ValidationFailed = "validation-failed" UNPROCESSABLE_ENTITY "Validation failed"
        "The body has the right shape, but a value in it is not allowed. `errors` lists each \
         fault as `{\"pointer\", \"detail\"}`. Nothing was changed, unless `order_id` names an \
         order: that order is `rejected`."
        "Correct the values that `errors` names and send the request again.";
    IdempotencyKeyReused = "idempotency-key-reused" UNPROCESSABLE_ENTITY
        "Idempotency key already used"
        "The same caller already used this `Idempotency-Key` for the same method and path with \
         another body. Nothing was changed."
        "Use a new key for a new request. To repeat a request, send exactly the same body.";
    RateLimited = "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "The caller sends more requests per second than the server allows. Nothing was changed."
        "Wait for the number of seconds in `Retry-After`, then send the request again.";
    InternalError = "internal-error" INTERNAL_SERVER_ERROR "Internal server error"
        "The server failed while it handled the request. Its log has the cause."
        "With an `Idempotency-Key` you can safely send the same request again. If the error \
         stays, report it with the `traceparent` of the answer.";
    CommandNotApplied = "command-not-applied" SERVICE_UNAVAILABLE "Command not applied"
        "The partition that owns this resource does not accept commands at the moment. Nothing \
         was changed."
        "Send the request again after the number of seconds in `Retry-After`.";
    OutcomeUnknown = "outcome-unknown" SERVICE_UNAVAILABLE "Command outcome unknown"
        "The server did not learn in time whether the command was applied. It may have been \
         applied, or it may still be."
        "With an `Idempotency-Key`, send the same request again: the command is never applied \
         twice. Without a key, read the resource that `id` names before you decide what to do.";
    ProjectionBehind = "projection-behind" SERVICE_UNAVAILABLE "Read model behind"
        "The read model has not yet processed the events that `Min-Log-Position` names, or the \
         events that an earlier answer under the same `Idempotency-Key` shows."
        "Ask again after the number of seconds in `Retry-After`, or allow more time with \
         `Prefer: wait=N`.";
    ProjectionParked = "projection-parked" SERVICE_UNAVAILABLE
        "Read model cannot show this resource"
        "The read model cannot apply an event of this resource, so it does not show the \
         resource as it is now. `stream` names the stream of the resource. Commands still work, \
         and lists show the resource as it was before that event."
        "Tell an operator. `GET /api/v1/admin/parked` shows the reason, and `POST \
         /api/v1/admin/parked/{stream}/retry` applies the events after a fix.";
    Unavailable = "unavailable" SERVICE_UNAVAILABLE "Service unavailable"
        "A part of the system that the request needs does not answer."
        "Send the request again after the number of seconds in `Retry-After`.";
}

impl Kind {
    /// The kind for an error that has only a status.
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
    fn every_kind_has_its_own_name_and_title_and_says_what_to_do() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let titles: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.title()).collect();
        assert_eq!((names.len(), titles.len()), (Kind::ALL.len(), Kind::ALL.len()));
        for kind in Kind::ALL {
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!(!kind.status().is_success());
            for text in [kind.meaning(), kind.action()] {
                assert!(text.len() > 15 && text.ends_with('.'), "{kind:?}: {text}");
                assert!(text.matches('`').count() % 2 == 0, "{kind:?}: {text}");
            }
        }
    }
}
