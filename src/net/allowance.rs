//! A bounded amount of something that many requests of a worker share: bytes of collected bodies.
//!
//! A `Permit` grows as its holder needs more and gives everything back when it is dropped.
//! Refused where the amount is used up; the caller then answers that it is overloaded.

use std::cell::Cell;
use std::rc::Rc;

/// The amount that is left. Cloning gives another hold on the same amount.
#[derive(Clone)]
pub struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// An allowance of `amount`.
    pub fn new(amount: u64) -> Allowance {
        Allowance(Rc::new(Cell::new(amount)))
    }

    /// What is left of it.
    pub fn left(&self) -> u64 {
        self.0.get()
    }

    /// A permit for nothing yet.
    pub fn permit(&self) -> Permit {
        Permit { allowance: self.clone(), held: 0 }
    }
}

/// A part of an allowance, given back on drop.
pub struct Permit {
    allowance: Allowance,
    held: u64,
}

impl Permit {
    /// Takes what is missing to hold `amount` in all; false, and nothing taken, where that is not left.
    pub fn grow_to(&mut self, amount: u64) -> bool {
        let missing = amount.saturating_sub(self.held);
        let Some(left) = self.allowance.left().checked_sub(missing) else { return false };
        self.allowance.0.set(left);
        self.held += missing;
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.allowance.0.set(self.allowance.left() + self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::Allowance;

    #[test]
    fn a_permit_holds_up_to_the_amount_and_gives_it_back() {
        let allowance = Allowance::new(10);
        let mut one = allowance.permit();
        let mut two = allowance.permit();
        assert!(one.grow_to(6) && one.grow_to(4) && two.grow_to(4));
        assert!(!two.grow_to(5));
        drop(one);
        assert!(two.grow_to(10));
        drop(two);
        assert_eq!(allowance.left(), 10);
    }
}
