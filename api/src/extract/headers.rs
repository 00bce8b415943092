//! Headers that a request may have once, and those that say how its message is written.

use crate::problem::{Kind, Problem};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

/// The value of a header that may be given once. A proxy may go by another of two values than the
/// program does.
///
/// # Errors
/// `invalid-parameter` if the header is given twice.
pub fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Problem::invalid_parameter(name.as_str(), "must not be given twice")),
    }
}

/// Checks what a request says about its message: to whom it is, and how its body is written.
///
/// # Errors
/// `invalid-parameter` for a request without exactly one host, or with two lengths;
/// `unsupported-media-type` for a body that is compressed.
pub fn check_message<B>(request: &Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    let host = single(headers, &header::HOST)?;
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Problem::invalid_parameter("host", "is required in HTTP/1.1"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        let detail = "must not be combined with transfer-encoding";
        return Err(Problem::invalid_parameter("content-length", detail));
    }
    let plain = |name, plain: &str| {
        let lines = headers.get_all(name).iter();
        let mut codings = lines.flat_map(|line| line.to_str().unwrap_or("unreadable").split(','));
        codings.all(|coding| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case(plain))
    };
    if !plain(header::CONTENT_ENCODING, "identity") || !plain(header::TRANSFER_ENCODING, "chunked")
    {
        let detail = "the body must not be compressed";
        let problem = Problem::new(Kind::UnsupportedMediaType, detail);
        return Err(problem.with_header(header::ACCEPT_ENCODING, "identity"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().version(version);
        let with = |request: axum::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        headers.iter().fold(request, with).body(()).unwrap()
    }

    fn refused(version: Version, headers: &[(&str, &str)]) -> Option<Kind> {
        check_message(&request(version, headers)).err().map(|problem| problem.kind())
    }

    #[test]
    fn a_request_names_one_host() {
        let one = ("host", "shop.example");
        assert_eq!(refused(Version::HTTP_11, &[one]), None);
        assert_eq!(refused(Version::HTTP_11, &[]), Some(Kind::InvalidParameter));
        assert_eq!(refused(Version::HTTP_11, &[one, one]), Some(Kind::InvalidParameter));
        assert_eq!(refused(Version::HTTP_2, &[]), None);
        assert_eq!(refused(Version::HTTP_10, &[]), None);
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let of = |name, value| refused(Version::HTTP_2, &[(name, value)]);
        for plain in ["identity", "Identity", "", "identity, identity"] {
            assert_eq!(of("content-encoding", plain), None, "{plain}");
        }
        for other in ["gzip", "br", "identity, gzip", "x-unknown"] {
            assert_eq!(of("content-encoding", other), Some(Kind::UnsupportedMediaType), "{other}");
        }
        assert_eq!(of("transfer-encoding", "chunked"), None);
        assert_eq!(of("transfer-encoding", "gzip, chunked"), Some(Kind::UnsupportedMediaType));
        let both = [("transfer-encoding", "chunked"), ("content-length", "3")];
        assert_eq!(refused(Version::HTTP_2, &both), Some(Kind::InvalidParameter));
    }

    #[test]
    fn a_header_that_may_be_given_once_is_not_given_twice() {
        let name = header::CONTENT_TYPE;
        let mut headers = HeaderMap::new();
        assert_eq!(single(&headers, &name).unwrap(), None);
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(single(&headers, &name).unwrap().unwrap(), "a");
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(single(&headers, &name).unwrap_err().kind(), Kind::InvalidParameter);
    }
}
