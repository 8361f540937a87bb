//! Memory of sessions whose requests were answered, for those to come: a verified request allocates nothing
//! of ours. A piece is handed out again only when nothing else holds it, which the reference count proves,
//! and it is overwritten whole on its way out (row S18).

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
};

use super::State;

/// Pieces kept for each thread.
const MOST: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Arc<Mutex<State>>>> = const { RefCell::new(Vec::new()) };
}

/// A piece that holds this state and belongs to the caller alone.
#[inline(always)]
pub(super) fn take(state: State) -> Arc<Mutex<State>> {
    // A thread that ends has none any more.
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    if let Some(mut piece) = spare
        && let Some(free) = Arc::get_mut(&mut piece)
    {
        *free = Mutex::new(state);
        return piece;
    }
    Arc::new(Mutex::new(state))
}

/// Gives back a piece that the caller alone holds.
#[inline]
pub(super) fn put(piece: Arc<Mutex<State>>) {
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MOST {
            spare.push(piece);
        }
    });
}
