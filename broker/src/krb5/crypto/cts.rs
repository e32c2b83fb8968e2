//! AES in CBC mode with ciphertext stealing and a zero IV (RFC 3962 5, "CBC-CS3").
//!
//! The last two blocks are swapped always, a whole last block too. A single block is plain
//! CBC. Shorter texts do not occur: a confounder comes first.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};

/// Bytes of an AES block.
const BLOCK: usize = 16;

type Block = [u8; BLOCK];

/// AES with a key of 16 or 32 bytes.
pub(super) enum Aes {
    Short(Box<Aes128>),
    Long(Box<Aes256>),
}

impl Aes {
    /// The cipher of this key.
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() == 16 {
            Self::Short(Box::new(Aes128::new_from_slice(key).expect("it has 16 bytes")))
        } else {
            Self::Long(Box::new(Aes256::new_from_slice(key).expect("all other keys have 32 bytes")))
        }
    }

    /// One block through the cipher.
    pub(super) fn encrypt_block(&self, block: Block) -> Block {
        let mut block = Array::from(block);
        match self {
            Self::Short(aes) => aes.encrypt_block(&mut block),
            Self::Long(aes) => aes.encrypt_block(&mut block),
        }
        block.into()
    }

    fn decrypt_block(&self, block: Block) -> Block {
        let mut block = Array::from(block);
        match self {
            Self::Short(aes) => aes.decrypt_block(&mut block),
            Self::Long(aes) => aes.decrypt_block(&mut block),
        }
        block.into()
    }

    /// Encrypts `text`, at least one block, in place.
    pub(super) fn encrypt(&self, text: &mut [u8]) {
        let length = text.len();
        let mut previous = [0; BLOCK];
        let Some(whole) = last_two(length) else {
            write(text, &self.encrypt_block(padded(text)));
            return;
        };
        for at in (0..whole).step_by(BLOCK) {
            previous = self.encrypt_block(xor(padded(&text[at..at + BLOCK]), previous));
            write(&mut text[at..], &previous);
        }
        let stolen = self.encrypt_block(xor(padded(&text[whole..whole + BLOCK]), previous));
        let last = self.encrypt_block(xor(padded(&text[whole + BLOCK..]), stolen));
        write(&mut text[whole..], &last);
        write(&mut text[whole + BLOCK..], &stolen);
    }

    /// Decrypts `text`, at least one block, in place.
    pub(super) fn decrypt(&self, text: &mut [u8]) {
        let length = text.len();
        let mut previous = [0; BLOCK];
        let Some(whole) = last_two(length) else {
            write(text, &self.decrypt_block(padded(text)));
            return;
        };
        for at in (0..whole).step_by(BLOCK) {
            let block = padded(&text[at..at + BLOCK]);
            write(&mut text[at..], &xor(self.decrypt_block(block), previous));
            previous = block;
        }
        let tail = length - whole - BLOCK;
        let last = self.decrypt_block(padded(&text[whole..whole + BLOCK]));
        let mut stolen = last; // its end is the end of the block before it
        stolen[..tail].copy_from_slice(&text[whole + BLOCK..]);
        write(&mut text[whole + BLOCK..], &xor(last, stolen));
        write(&mut text[whole..], &xor(self.decrypt_block(stolen), previous));
    }
}

/// Where the last two blocks begin, the last maybe not whole; `None` for a single block.
fn last_two(length: usize) -> Option<usize> {
    debug_assert!(length >= BLOCK, "a confounder comes first");
    if length <= BLOCK { None } else { Some((length - 1) / BLOCK * BLOCK - BLOCK) }
}

/// The block that begins `bytes`, with zeros where they end early.
fn padded(bytes: &[u8]) -> Block {
    let mut block = [0; BLOCK];
    block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    block
}

fn xor(mut left: Block, right: Block) -> Block {
    left.iter_mut().zip(right).for_each(|(l, r)| *l ^= r);
    left
}

/// Writes as much of `block` as there is room for.
fn write(text: &mut [u8], block: &Block) {
    text.iter_mut().zip(block).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3962 appendix B: key "chicken teriyaki", IV zero.
    #[test]
    fn texts_of_every_length_encrypt_as_rfc_3962_says() {
        let text = b"I would like the General Gau's Chicken, please, and wonton soup.";
        let aes = Aes::new(b"chicken teriyaki");
        for (length, expected) in [
            (17, "c6353568f2bf8cb4d8a580362da7ff7f97"),
            (31, "fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
            (32, "39312523a78662d5be7fcbcc98ebf5a897687268d6ecccc0c07b25e25ecfe584"),
            (
                47,
                "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e\
                 39312523a78662d5be7fcbcc98ebf5",
            ),
            (
                64,
                "97687268d6ecccc0c07b25e25ecfe58439312523a78662d5be7fcbcc98ebf5a8\
                 4807efe836ee89a526730dbc2f7bc8409dad8bbb96c4cdc03bc103e1a194bbd8",
            ),
        ] {
            let mut bytes = text[..length].to_vec();
            aes.encrypt(&mut bytes);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{length} bytes");
            aes.decrypt(&mut bytes);
            assert_eq!(bytes, &text[..length]);
        }
    }
}
