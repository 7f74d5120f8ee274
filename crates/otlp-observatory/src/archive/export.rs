//! Export of what is kept.

use rusqlite::params;

use super::{Archive, decoded};
use crate::store::{EXPORT_PIECE, ExportPiece, Progress, TraceId};

impl Archive {
    /// Returns a trace with its records; `None` if it is not in the archive.
    pub(crate) fn export_trace(&self, id: TraceId) -> rusqlite::Result<Option<ExportPiece>> {
        let store = self.read_whole_trace(id)?;
        Ok(store.export_trace(id))
    }

    /// Returns the rows after `progress`, and advances it; `None` at the end.
    pub(crate) fn export_piece(&self, progress: &mut Progress) -> rusqlite::Result<Option<ExportPiece>> {
        let reader = self.readers.get()?;
        let mut rows = reader
            .prepare_cached("SELECT number, signal, body FROM items WHERE number >= ?1 ORDER BY number")?;
        let mut rows = rows.query(params![progress.row])?;
        let mut piece = None;
        let mut bytes = 0;
        while let Some(row) = rows.next()?
            && bytes < EXPORT_PIECE
        {
            progress.row = row.get::<_, i64>(0)? + 1;
            let body = row.get_ref(2)?.as_blob()?;
            bytes += body.len();
            if let Some(export) = decoded(row.get(1)?, body) {
                piece.get_or_insert_with(ExportPiece::default).add(export);
            }
        }
        Ok(piece)
    }
}
