//! A hash that was stored: of our own making, or brought along from another system.

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use zeroize::Zeroizing;

use super::{Password, PasswordCost};
use crate::base::hash;

/// Of ours.
pub(super) const OUTPUT: usize = 32;
/// A shorter output than this is no evidence.
const SHORTEST: usize = 16;
/// How many times the configured cost a stored hash may ask for.
const CAP: u32 = 4;

/// A hash that was stored, read.
pub(super) enum Stored {
    Argon2 {
        params: Params,
        salt: Vec<u8>,
        output: Vec<u8>,
    },
    #[cfg(feature = "bcrypt")]
    Bcrypt(String),
}

impl Stored {
    /// Nobody's: costs what a real one does.
    pub(super) fn nobodys(params: &Params) -> Self {
        Self::Argon2 { params: params.clone(), salt: vec![0; 16], output: vec![0; OUTPUT] }
    }

    /// `None` if the text is no hash that is taken, or asks for more than it may: four times the configured cost of
    /// Argon2id.
    pub(super) fn read(text: &str, cost: PasswordCost) -> Option<Self> {
        // No hash we take is longer; the parsers behind this never see what isn't ASCII.
        if text.len() > 256 || !text.is_ascii() {
            return None;
        }
        #[cfg(feature = "bcrypt")]
        if text.starts_with("$2") {
            return bcrypt_of(text);
        }
        let read = PasswordHash::new(text).ok()?;
        if read.algorithm.as_str() != "argon2id" || read.version != Some(u32::from(Version::V0x13)) {
            return None;
        }
        let params = Params::try_from(&read).ok()?;
        let within = |value: u32, limit: u32| value <= limit.saturating_mul(CAP);
        let fits = within(params.m_cost(), cost.memory_kib)
            && within(params.t_cost(), cost.passes)
            && within(params.p_cost(), cost.lanes);
        let (salt, output) = (read.salt?, read.hash?);
        (fits && output.len() >= SHORTEST).then(|| Self::Argon2 {
            params,
            salt: salt.as_ref().to_vec(),
            output: output.as_bytes().to_vec(),
        })
    }

    /// Whether it isn't what would be made today.
    pub(super) fn is_outdated(&self, today: &Params) -> bool {
        match self {
            Self::Argon2 { params, .. } => params != today,
            #[cfg(feature = "bcrypt")]
            Self::Bcrypt(_) => true,
        }
    }

    /// Computes whether it is this password's: the one dear step. `None`: there was no memory for it.
    pub(super) fn is_of(&self, password: &Password, memory: &mut Vec<Block>) -> Option<bool> {
        match self {
            Self::Argon2 { params, salt, output } => {
                Some(hash::same(&argon2id(params, salt, output.len(), password, memory)?, output))
            }
            #[cfg(feature = "bcrypt")]
            Self::Bcrypt(text) => {
                let typed = password.as_str().as_bytes();
                // Of a longer one bcrypt hashed the first 72 bytes, and some made an end at a NUL: whether the rest is
                // right nobody can say, so it isn't (row W02). It takes as long.
                let whole = typed.len() <= LONGEST && !typed.contains(&0);
                Some(bcrypt::verify(typed, text).ok()? & whole)
            }
        }
    }
}

pub(super) fn argon2id(
    params: &Params,
    salt: &[u8],
    length: usize,
    password: &Password,
    memory: &mut Vec<Block>,
) -> Option<Zeroizing<Vec<u8>>> {
    let mut output = Zeroizing::new(vec![0; length]);
    let lacking = params.block_count().saturating_sub(memory.len());
    memory.try_reserve_exact(lacking).ok()?;
    memory.resize(memory.len() + lacking, Block::new());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(
            password.as_str().as_bytes(),
            salt,
            &mut output,
            memory.as_mut_slice(),
        )
        .is_ok()
        .then_some(output)
}

pub(super) fn phc(params: &Params, salt: &[u8], output: &[u8]) -> Option<String> {
    let whole = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params.try_into().ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(output).ok()?),
    };
    Some(whole.to_string())
}

/// How many bytes bcrypt hashes.
#[cfg(feature = "bcrypt")]
const LONGEST: usize = 72;
/// The dearest that is computed: four times 12, which systems take today.
#[cfg(feature = "bcrypt")]
const DEAREST: u32 = 14;

/// A hash by bcrypt, as systems write it today and long since: of those by the flawed one, `$2x$`, nobody knows what
/// they are of.
#[cfg(feature = "bcrypt")]
fn bcrypt_of(text: &str) -> Option<Stored> {
    let known = ["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start));
    let parts: bcrypt::HashParts = text.parse().ok().filter(|_| known)?;
    (4..=DEAREST).contains(&parts.get_cost()).then(|| Stored::Bcrypt(text.to_owned()))
}
