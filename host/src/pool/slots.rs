//! The slots of a pool. Each has an instance, or may create one.

use std::mem;

use crate::instance::Instance;

/// As many slots as were needed at once, and no more than allowed.
pub(super) struct Slots(Vec<Slot>);

enum Slot {
    /// The instance is idle, or one can be created.
    Free(Option<Instance>),
    /// A lease has the instance, or the right to create it.
    Leased,
}

impl Slots {
    /// Creates one slot, with its instance.
    pub(super) fn new(first: Instance) -> Slots {
        Slots(vec![Slot::Free(Some(first))])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Leases a free slot, with its instance if it has one. A slot with an instance takes
    /// precedence over one without, and the preferred slot over others. Returns none if
    /// `at_most` slots are leased.
    pub(super) fn lease(
        &mut self,
        preferred: usize,
        at_most: usize,
    ) -> Option<(usize, Option<Instance>)> {
        let rank = |(number, slot): (usize, &Slot)| match slot {
            Slot::Free(instance) => Some((instance.is_none(), number != preferred, number)),
            Slot::Leased => None,
        };
        let best = self.0.iter().enumerate().filter_map(rank).min();
        let number = match best {
            Some((_, _, number)) => number,
            None if self.0.len() < at_most => {
                self.0.push(Slot::Free(None));
                self.0.len() - 1
            }
            None => return None,
        };
        match mem::replace(&mut self.0[number], Slot::Leased) {
            Slot::Free(instance) => Some((number, instance)),
            Slot::Leased => None,
        }
    }

    /// Ends a lease.
    pub(super) fn release(&mut self, slot: usize, instance: Option<Instance>) {
        self.0[slot] = Slot::Free(instance);
    }

    pub(super) fn are_all_free(&self) -> bool {
        self.0.iter().all(|slot| matches!(slot, Slot::Free(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_slots_than_instances() {
        let mut slots = Slots(vec![Slot::Leased]);
        let number = |leased: Option<(usize, Option<Instance>)>| leased.map(|(number, _)| number);
        assert_eq!(number(slots.lease(0, 3)), Some(1));
        assert_eq!(number(slots.lease(0, 3)), Some(2));
        assert_eq!(number(slots.lease(0, 3)), None);
        assert!(!slots.are_all_free());
        slots.release(1, None);
        slots.release(2, None);
        assert_eq!(number(slots.lease(2, 3)), Some(2));
        assert_eq!(number(slots.lease(2, 3)), Some(1));
        assert_eq!(number(slots.lease(1, 3)), None);
    }
}
