//! E-mail addresses and phone numbers, normalised at the door (rows O29 to O31).

use super::ident::{FactorId, LoginId};
