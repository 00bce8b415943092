//! Limits the requests that are under way from one address.

use crate::problem::{Kind, Problem};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of requests under way from each address. Clones share it.
#[derive(Clone)]
pub(crate) struct UnderWay {
    most: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl UnderWay {
    /// Allows `most` requests at once from one address; 0 for no limit.
    pub fn new(most: u32) -> Self {
        let most = if most == 0 { usize::MAX } else { most as usize };
        Self { most, counts: Arc::default() }
    }

    /// Counts a request until the result is dropped.
    ///
    /// # Errors
    /// `rate-limited` if the address has too many.
    pub fn begin(&self, address: IpAddr) -> Result<Place, Problem> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            let detail = "too many requests from this address are under way";
            return Err(Problem::new(Kind::RateLimited, detail).retry_after(1));
        }
        *count += 1;
        drop(counts);
        Ok(Place { address, under_way: self.clone() })
    }
}

/// A request under way.
pub(crate) struct Place {
    address: IpAddr,
    under_way: UnderWay,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.under_way.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_only_so_many_requests_at_once() {
        let under_way = UnderWay::new(2);
        let [ann, bob] = [1, 2].map(|last| IpAddr::from([203, 0, 113, last]));
        let places = [ann, ann, bob].map(|address| under_way.begin(address).unwrap());
        assert_eq!(under_way.begin(ann).err().unwrap().kind(), Kind::RateLimited);
        drop(places);
        assert!(under_way.begin(ann).is_ok());
        assert!(under_way.counts.lock().unwrap().is_empty());
    }
}
