//! Sets of devices.

use cerium_artifact::DeviceId;

/// A set of up to 64 devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Devices(u64);

impl Devices {
    /// No device.
    pub(super) const NONE: Devices = Devices(0);

    /// One device.
    pub(super) fn one(device: DeviceId) -> Devices {
        Devices(1 << device.0)
    }

    /// `count` devices from `first`.
    pub(super) fn range(first: usize, count: usize) -> Devices {
        let all = if count == 64 { u64::MAX } else { (1 << count) - 1 };
        Devices(all << first)
    }

    pub(super) fn contains(self, device: DeviceId) -> bool {
        self.0 >> device.0 & 1 == 1
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn union(self, other: Devices) -> Devices {
        Devices(self.0 | other.0)
    }

    pub(super) fn intersection(self, other: Devices) -> Devices {
        Devices(self.0 & other.0)
    }

    pub(super) fn minus(self, other: Devices) -> Devices {
        Devices(self.0 & !other.0)
    }

    /// The first of them.
    pub(super) fn first(self) -> Option<DeviceId> {
        self.iter().next()
    }

    /// In order.
    pub(super) fn iter(self) -> impl Iterator<Item = DeviceId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let device = DeviceId(rest.trailing_zeros() as u16);
                rest &= rest - 1;
                device
            })
        })
    }
}
