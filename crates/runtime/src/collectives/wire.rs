//! What a rank says, in words: for carriers between processes.

use super::news::{Failure, FailureKind, Message, News, Part, Tag};

/// Words that stand before what is said: its kind, a number in two halves, and how many words follow.
pub(super) type Header = [u32; 4];

/// A rank is alive. The only thing said that is no news.
pub(super) const ALIVE: Header = [8, 0, 0, 0];

/// What follows a header, in words.
pub(super) fn following(header: &Header) -> usize {
    header[3] as usize
}

/// Is it the last that a rank says?
pub(super) fn is_last(header: &Header) -> bool {
    header[0] == 4
}

/// News as a header and the words that follow it. Who says it is known to who hears it.
///
/// # Panics
/// If more than 2^31 - 1 words follow: neither MPI nor the header can count more.
pub(super) fn encode(news: News) -> (Header, Vec<u32>) {
    let (kind, number, words) = match news {
        News::Message { message: Message { tag, words }, .. } => {
            let kind = match tag.part {
                Part::Limbs => 0,
                Part::Summands => 1,
                Part::Sums => 2,
                Part::Bytes => 3,
            };
            (kind, tag.collective, words)
        }
        News::Left { .. } => (4, 0, Vec::new()),
        News::Failed(Failure { rank, kind, reason }) => {
            let kind = match kind {
                FailureKind::Lost => 5,
                FailureKind::GaveUp => 6,
            };
            (kind, rank as u64, pack(reason.as_bytes()))
        }
        News::Waits { on, .. } => (7, on as u64, Vec::new()),
    };
    assert!(words.len() < 1 << 31, "{} words in one message", words.len());
    ([kind, number as u32, (number >> 32) as u32, words.len() as u32], words)
}

/// What `from` says; nothing if it says that it is alive, or if the words are none of [`encode`].
pub(super) fn decode(from: usize, header: &Header, words: Vec<u32>) -> Option<News> {
    let [kind, low, high, _] = *header;
    let number = u64::from(high) << 32 | u64::from(low);
    const PARTS: [Part; 4] = [Part::Limbs, Part::Summands, Part::Sums, Part::Bytes];
    match kind {
        0..4 => {
            let tag = Tag { collective: number, part: PARTS[kind as usize] };
            Some(News::Message { from, message: Message { tag, words } })
        }
        4 => Some(News::Left { rank: from }),
        5 | 6 => {
            let kind = if kind == 5 { FailureKind::Lost } else { FailureKind::GaveUp };
            let reason = String::from_utf8_lossy(&unpack(&words)?).into_owned();
            Some(News::Failed(Failure { rank: number as usize, kind, reason }))
        }
        7 => Some(News::Waits { rank: from, on: number as usize }),
        _ => None,
    }
}

/// Bytes as words: how many there are, low half first, then four to a word.
pub(super) fn pack(bytes: &[u8]) -> Vec<u32> {
    let length = bytes.len() as u64;
    let mut words = vec![0; 2 + bytes.len().div_ceil(4)];
    (words[0], words[1]) = (length as u32, (length >> 32) as u32);
    bytemuck::cast_slice_mut(&mut words[2..])[..bytes.len()].copy_from_slice(bytes);
    words
}

/// The bytes of packed words; `None` if they are not packed bytes.
pub(super) fn unpack(words: &[u32]) -> Option<Vec<u8>> {
    let [low, high, rest @ ..] = words else { return None };
    let length = usize::try_from(u64::from(*high) << 32 | u64::from(*low)).ok()?;
    (length.div_ceil(4) == rest.len()).then(|| bytemuck::cast_slice(rest)[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use rand_core::RngCore;

    use super::*;
    use crate::testing::fresh_rng;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut rng = fresh_rng();
        let mut news = vec![News::Left { rank: 3 }, News::Waits { rank: 3, on: 70_000 }];
        for part in [Part::Limbs, Part::Summands, Part::Sums, Part::Bytes] {
            let tag = Tag { collective: rng.next_u64(), part };
            let words = (0..rng.next_u32() % 20).map(|_| rng.next_u32()).collect();
            news.push(News::Message { from: 3, message: Message { tag, words } });
        }
        for kind in [FailureKind::Lost, FailureKind::GaveUp] {
            news.push(News::Failed(Failure { rank: 5, kind, reason: "über Nacht".into() }));
        }
        for news in news {
            let (header, words) = encode(news.clone());
            assert_eq!((following(&header), is_last(&header)), (words.len(), news == News::Left { rank: 3 }));
            assert_eq!(decode(3, &header, words), Some(news));
        }
        assert_eq!(decode(3, &ALIVE, Vec::new()), None);
    }

    #[test]
    fn bytes_of_every_length_are_packed() {
        let mut rng = fresh_rng();
        for length in 0..20 {
            let bytes: Vec<u8> = (0..length).map(|_| rng.next_u32() as u8).collect();
            assert_eq!(unpack(&pack(&bytes)), Some(bytes));
        }
        for words in [&[][..], &[4], &[4, 0], &[0, 0, 0], &[0, 1, 0]] {
            assert_eq!(unpack(words), None);
        }
    }
}
