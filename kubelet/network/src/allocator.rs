//! Which pod gets which address. Pure.
//!
//! Addresses are given in a row and used again only after the range has gone around: what still talks to a pod that
//! is gone should meet nobody, not somebody else (upstream's `host-local` plugin does the same).

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// The addresses of a range, except its first (the bridge's) and last (broadcast).
#[derive(Debug, Clone)]
pub(crate) struct Allocator {
    range: Ipv4Net,
    /// Owner by offset from the network's address.
    owners: HashMap<u32, String>,
    /// Offset at which the next search begins.
    next: u32,
}

/// Offset of the first address for pods: 0 is the network's, 1 the bridge's.
const FIRST: u32 = 2;

impl Allocator {
    /// A range with nothing given away.
    pub(crate) fn new(range: Ipv4Net) -> Self {
        Self { range, owners: HashMap::new(), next: FIRST }
    }

    /// The range itself.
    pub(crate) fn range(&self) -> Ipv4Net {
        self.range
    }

    /// The bridge's address, the pods' gateway.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// How many pods the range can hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.end().saturating_sub(FIRST)
    }

    /// Gives the next free address.
    pub(crate) fn allocate(&mut self, owner: &str) -> Option<Ipv4Addr> {
        let capacity = self.capacity();
        let start = self.next - FIRST;
        let offset = (0..capacity)
            .map(|step| FIRST + (start + step) % capacity)
            .find(|offset| !self.owners.contains_key(offset))?;
        self.owners.insert(offset, owner.to_owned());
        self.next = if offset + 1 < self.end() { offset + 1 } else { FIRST };
        Some(self.at(offset))
    }

    /// Takes an address that a pod already has; `false` if it is outside the range or somebody else's.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr, owner: &str) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.range.network()));
        if !(FIRST..self.end()).contains(&offset) {
            return false;
        }
        if offset >= self.next {
            self.next = if offset + 1 < self.end() { offset + 1 } else { FIRST };
        }
        self.owners.entry(offset).or_insert_with(|| owner.to_owned()) == owner
    }

    /// Gives back whatever an owner has.
    pub(crate) fn release(&mut self, owner: &str) {
        self.owners.retain(|_, of| of != owner);
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + offset)
    }

    /// Offset of the broadcast address.
    fn end(&self) -> u32 {
        u32::from(self.range.broadcast()) - u32::from(self.range.network())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(range: &str) -> Allocator {
        Allocator::new(range.parse().unwrap())
    }

    #[test]
    fn first_and_last_addresses_are_kept() {
        let mut allocator = allocator("10.244.1.0/29");
        assert_eq!(allocator.gateway(), Ipv4Addr::new(10, 244, 1, 1));
        let given: Vec<u8> = (0..)
            .map_while(|n| allocator.allocate(&n.to_string()))
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn an_address_is_used_again_only_after_all_others() {
        let mut allocator = allocator("10.244.1.0/29");
        for round in 0..20_u8 {
            let address = allocator.allocate("one").unwrap();
            assert_eq!(address.octets()[3], 2 + round % 5);
            allocator.release("one");
        }
    }

    #[test]
    fn what_is_reserved_is_not_given() {
        let mut allocator = allocator("10.244.1.0/29");
        assert!(allocator.reserve(Ipv4Addr::new(10, 244, 1, 3), "old"));
        assert!(allocator.reserve(Ipv4Addr::new(10, 244, 1, 3), "old"), "by its owner, again");
        assert!(!allocator.reserve(Ipv4Addr::new(10, 244, 1, 3), "other"));
        for outside in [[10, 244, 1, 0], [10, 244, 1, 1], [10, 244, 1, 7], [10, 244, 0, 3], [10, 244, 1, 8]] {
            assert!(!allocator.reserve(Ipv4Addr::from(outside), "x"), "{outside:?}");
        }
        let given: Vec<u8> = (0..)
            .map_while(|n| allocator.allocate(&n.to_string()))
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(given, [4, 5, 6, 2], "after a restart too, the range goes on where it was");
    }

    #[test]
    fn tiny_ranges_give_what_they_have() {
        for (range, capacity) in
            [("10.0.0.0/32", 0), ("10.0.0.0/31", 0), ("10.0.0.0/30", 1), ("10.0.0.0/24", 253)]
        {
            let mut allocator = allocator(range);
            assert_eq!(allocator.capacity(), capacity, "{range}");
            assert_eq!(
                (0..capacity + 1).filter_map(|n| allocator.allocate(&n.to_string())).count() as u32,
                capacity
            );
        }
    }
}
