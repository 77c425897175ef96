//! A compressed tensor, by whichever codec.

use super::element::Element;
use super::geometry::Geometry;
use super::halves::decompress_halves;
use super::int4::Int4Payload;
use super::kvarn::KvarnPayload;
use super::packing::Packing;
use super::parts::{Part, PartElement, PartName};
use super::scheme::SchemePayload;
use super::two_centre::TwoCentrePayload;
use half::f16;

/// A compressed tensor, owned: the bytes that would be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload(Stored);

#[derive(Debug, Clone, PartialEq)]
enum Stored {
    F16(Vec<f16>),
    Int4(Int4Payload),
    Scheme(SchemePayload),
    TwoCentre(TwoCentrePayload),
    Kvarn(KvarnPayload),
}

/// Matches whichever payload it is; the first arm is that of halves.
macro_rules! each {
    ($stored:expr, $halves:ident => $f16:expr, $payload:ident => $others:expr) => {
        match $stored {
            Stored::F16($halves) => $f16,
            Stored::Int4($payload) => $others,
            Stored::Scheme($payload) => $others,
            Stored::TwoCentre($payload) => $others,
            Stored::Kvarn($payload) => $others,
        }
    };
}

impl Payload {
    pub(super) fn of_halves(halves: Vec<f16>) -> Self {
        Self(Stored::F16(halves))
    }

    pub(super) fn of_int4(payload: Int4Payload) -> Self {
        Self(Stored::Int4(payload))
    }

    /// Of a packing, with room for its parts, which are zero.
    pub(super) fn empty<T: Element>(packing: Packing, values: usize, geometry: &Geometry) -> Self {
        Self(match packing {
            Packing::Scheme(scheme) => match scheme.as_int4() {
                Some(group) => Stored::Int4(Int4Payload::empty(group, values)),
                None => Stored::Scheme(SchemePayload::empty::<T>(scheme, values, geometry)),
            },
            Packing::TwoCentre(codec) => {
                Stored::TwoCentre(TwoCentrePayload::empty(codec, values, geometry))
            }
            Packing::Kvarn(codec) => {
                Stored::Kvarn(KvarnPayload::empty::<T>(codec, values, geometry))
            }
        })
    }

    /// Packs a flattened row-major tensor, which the packing can store. `None` where a value is not
    /// finite.
    pub fn pack<T: Element>(values: &[T], packing: Packing, geometry: &Geometry) -> Option<Self> {
        Some(Self(match packing {
            Packing::Scheme(scheme) => match scheme.as_int4() {
                Some(group) => {
                    let packed = Int4Payload::compress_measured(values, group, geometry.head_dim);
                    Stored::Int4(packed?.0)
                }
                None => Stored::Scheme(SchemePayload::compress(values, scheme, geometry)?),
            },
            Packing::TwoCentre(codec) => {
                Stored::TwoCentre(TwoCentrePayload::compress(values, codec, geometry)?)
            }
            Packing::Kvarn(codec) => {
                Stored::Kvarn(KvarnPayload::compress(values, codec, geometry)?)
            }
        }))
    }

    /// The parts in the order of a file.
    pub fn parts(&self) -> Vec<Part<&[u8]>> {
        each!(&self.0,
            halves => {
                let bytes = bytemuck::cast_slice(halves);
                vec![Part::new(PartName::Values, PartElement::F16, bytes)]
            },
            payload => payload.parts())
    }

    /// The same, to be read into.
    pub fn parts_mut(&mut self) -> Vec<Part<&mut [u8]>> {
        each!(&mut self.0,
            halves => {
                let bytes = bytemuck::cast_slice_mut(halves);
                vec![Part::new(PartName::Values, PartElement::F16, bytes)]
            },
            payload => payload.parts_mut())
    }

    /// The power of two that all numbers are stored divided by; 0 for f16.
    pub fn exponent(&self) -> i32 {
        each!(&self.0, _halves => 0, payload => payload.exponent)
    }

    /// Sets what [`Payload::exponent`] was of the tensor whose parts are read.
    pub fn set_exponent(&mut self, exponent: i32) {
        each!(&mut self.0, _halves => {}, payload => payload.exponent = exponent);
    }

    /// Whether all numbers but codes are finite, as every writer's are.
    pub fn is_finite(&self) -> bool {
        self.parts().iter().all(Part::is_finite)
    }

    /// Number of values stored.
    pub fn len(&self) -> usize {
        each!(&self.0, halves => halves.len(), payload => payload.len())
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the payload: codes, scales and everything else needed to decode it but the codec's
    /// name and the shape. An exponent of 0 is the default and takes no room.
    pub fn stored_bytes(&self) -> usize {
        let exponent = if self.exponent() == 0 { 0 } else { 2 };
        self.parts().iter().map(|part| part.content.len()).sum::<usize>() + exponent
    }

    /// Writes the decoded values. `out` holds exactly [`Payload::len`] values; `geometry` is that
    /// of compression.
    pub fn decompress<T: Element>(&self, geometry: &Geometry, out: &mut [T]) {
        assert_eq!(out.len(), self.len(), "output of another length than the payload");
        match &self.0 {
            Stored::F16(halves) => decompress_halves(halves, out),
            Stored::Int4(payload) => payload.decompress(out),
            Stored::Scheme(payload) => payload.decompress(geometry, out),
            Stored::TwoCentre(payload) => payload.decompress(geometry, out),
            Stored::Kvarn(payload) => payload.decompress(out),
        }
    }
}
