//! Which pieces of a [`BlobFile`](super::BlobFile) are present, their guards, and who holds their units: no I/O.

use std::collections::HashMap;

use colibri_common::ByteRange;
use colibri_package::delivery::Layout;

/// The units of one file that have at least one piece, or a holder.
#[derive(Debug, Default)]
pub(super) struct Units(HashMap<u32, Unit>);

#[derive(Debug)]
struct Unit {
    /// Readers and writers at work; a held unit keeps its space.
    holds: u32,
    /// Bytes of it may be in the file, whether or not a piece is present.
    touched: bool,
    /// Its guards were computed from verified bytes by this process, or are believed to have been by an earlier one.
    proven: bool,
    first_piece: u32,
    pieces: Vec<Piece>,
    /// The CRC-32C of each piece.
    guards: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Absent,
    /// Somebody is writing it; others leave it to them.
    Writing,
    Present,
}

impl Unit {
    fn new(layout: &Layout, number: u32) -> Self {
        let pieces = layout.pieces_of(number);
        let count = pieces.len();
        Self {
            holds: 0,
            touched: false,
            proven: true,
            first_piece: pieces.start,
            pieces: vec![Piece::Absent; count],
            guards: vec![0; count],
        }
    }

    fn piece(&self, piece: u32) -> Option<Piece> {
        self.pieces.get((piece - self.first_piece) as usize).copied()
    }

    fn set_piece(&mut self, piece: u32, state: Piece) {
        if let Some(place) = self.pieces.get_mut((piece - self.first_piece) as usize) {
            *place = state;
        }
    }
}

impl Units {
    /// A piece without bytes is always there.
    pub(super) fn has_piece(&self, layout: &Layout, piece: u32) -> bool {
        layout.piece_range(piece).is_empty() || self.guard(layout, piece).is_some()
    }

    pub(super) fn is_held(&self, unit: u32) -> bool {
        self.0.get(&unit).is_some_and(|unit| unit.holds > 0)
    }

    /// Units that have a piece.
    pub(super) fn used(&self) -> Vec<u32> {
        let is_used = |unit: &Unit| unit.pieces.contains(&Piece::Present);
        self.0.iter().filter(|(_, unit)| is_used(unit)).map(|(number, _)| *number).collect()
    }

    /// Takes over a whole unit that an earlier process wrote.
    pub(super) fn adopt(&mut self, layout: &Layout, number: u32, guards: Vec<u32>, proven: bool) {
        let unit = Unit::new(layout, number);
        let pieces = vec![Piece::Present; unit.pieces.len()];
        self.0.insert(number, Unit { touched: true, proven, pieces, guards, ..unit });
    }

    pub(super) fn hold(&mut self, layout: &Layout, unit: u32) {
        self.0.entry(unit).or_insert_with(|| Unit::new(layout, unit)).holds += 1;
    }

    /// Ends a hold; true if the unit has neither holder nor piece left but was written to, so that its space can go.
    pub(super) fn release(&mut self, unit: u32) -> bool {
        let Some(entry) = self.0.get_mut(&unit) else { return false };
        entry.holds -= 1;
        let is_idle = entry.holds == 0 && entry.pieces.iter().all(|piece| *piece == Piece::Absent);
        let was_touched = entry.touched;
        if is_idle {
            self.0.remove(&unit);
        }
        is_idle && was_touched
    }

    /// Forgets a unit that nobody holds; false if there is nothing to forget, or it is held.
    pub(super) fn forget(&mut self, unit: u32) -> bool {
        !self.is_held(unit) && self.0.remove(&unit).is_some()
    }

    /// Forgets a piece that turned out bad.
    pub(super) fn drop_piece(&mut self, layout: &Layout, piece: u32) {
        if let Some(unit) = self.0.get_mut(&layout.unit_of(piece))
            && unit.piece(piece) == Some(Piece::Present)
        {
            unit.set_piece(piece, Piece::Absent);
        }
    }

    /// Claims an absent piece of a held unit for writing; false if it is there or somebody else writes it.
    pub(super) fn claim(&mut self, layout: &Layout, piece: u32) -> bool {
        let Some(unit) = self.0.get_mut(&layout.unit_of(piece)) else { return false };
        let is_absent = unit.piece(piece) == Some(Piece::Absent);
        if is_absent {
            unit.set_piece(piece, Piece::Writing);
            unit.touched = true;
        }
        is_absent
    }

    /// Ends a claim: the piece is there with these bytes, or, without them, still absent.
    pub(super) fn settle(&mut self, layout: &Layout, piece: u32, written: Option<&[u8]>) {
        let Some(unit) = self.0.get_mut(&layout.unit_of(piece)) else { return };
        let Some(bytes) = written else { return unit.set_piece(piece, Piece::Absent) };
        if let Some(place) = unit.guards.get_mut((piece - unit.first_piece) as usize) {
            *place = crc32c::crc32c(bytes);
        }
        unit.set_piece(piece, Piece::Present);
    }

    /// The guard of a present piece.
    pub(super) fn guard(&self, layout: &Layout, piece: u32) -> Option<u32> {
        let unit = self.0.get(&layout.unit_of(piece))?;
        (unit.piece(piece)? == Piece::Present).then(|| unit.guards[(piece - unit.first_piece) as usize])
    }

    /// The guards of a unit of which every piece is present.
    pub(super) fn whole(&self, unit: u32) -> Option<&[u32]> {
        let unit = self.0.get(&unit)?;
        unit.pieces.iter().all(|piece| *piece == Piece::Present).then_some(&unit.guards)
    }

    /// Whether the guards of this unit can be believed.
    pub(super) fn is_proven(&self, unit: u32) -> bool {
        self.0.get(&unit).is_some_and(|unit| unit.proven)
    }

    /// All present pieces of this unit were verified against the leaves.
    pub(super) fn set_proven(&mut self, unit: u32) {
        if let Some(unit) = self.0.get_mut(&unit) {
            unit.proven = true;
        }
    }

    /// True if no unit with anything in the file, or about to be, has a byte of `range`.
    pub(super) fn are_free(&self, layout: &Layout, range: ByteRange) -> bool {
        layout.units_of(range).all(|unit| !self.0.contains_key(&unit))
    }

    /// True if there is nothing of this unit, and nobody at it.
    pub(super) fn is_free(&self, unit: u32) -> bool {
        !self.0.contains_key(&unit)
    }
}
