//! Matches the start of a text against many byte strings, in time linear in the longest match.

/// No value, or no child.
const NONE: u32 = u32::MAX;

/// A trie over byte strings. The children of a node are adjacent, ordered by byte.
#[derive(Debug, Clone)]
pub struct Trie {
    /// For each node, the byte that leads to it.
    labels: Vec<u8>,
    /// For each node, its first child; its last one precedes the next node's first.
    first_child: Vec<u32>,
    /// For each node, the value of the string that ends there, or [`NONE`].
    values: Vec<u32>,
    /// Children of the root by byte.
    from_root: Box<[u32; 256]>,
    /// The index of the first repeated key.
    repeated: Option<u32>,
}

/// A position in a [`Trie`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(u32);

impl Trie {
    /// A trie of the keys, with their indices in the slice as values. For equal keys the first counts. `None` if
    /// there are too many bytes for 32-bit indices.
    pub fn new(keys: &[&[u8]]) -> Option<Self> {
        let bytes: usize = keys.iter().map(|key| key.len()).sum();
        if u32::try_from(bytes).is_err() || u32::try_from(keys.len()).is_err() {
            return None;
        }
        let mut sorted: Vec<(&[u8], u32)> = keys.iter().copied().zip(0..).collect();
        sorted.sort_unstable();

        // Each node covers the keys `sorted[from..to]`, which share their first `depth` bytes.
        struct Range {
            from: u32,
            to: u32,
            depth: u32,
        }
        let mut ranges = vec![Range { from: 0, to: keys.len() as u32, depth: 0 }];
        let (mut labels, mut first_child, mut values) = (vec![0], Vec::new(), vec![NONE]);
        let (mut node, mut repeated) = (0, None);
        while let Some(&Range { mut from, to, depth }) = ranges.get(node) {
            first_child.push(labels.len() as u32);
            let byte = |at: u32| sorted[at as usize].0.get(depth as usize).copied();
            while from < to && byte(from).is_none() {
                let place = sorted[from as usize].1;
                if values[node] == NONE {
                    values[node] = place;
                } else {
                    repeated = Some(repeated.map_or(place, |first: u32| first.min(place)));
                }
                from += 1;
            }
            while from < to {
                let label = byte(from);
                let end = (from + 1..to).find(|&at| byte(at) != label).unwrap_or(to);
                labels.push(label.unwrap_or_default());
                values.push(NONE);
                ranges.push(Range { from, to: end, depth: depth + 1 });
                from = end;
            }
            node += 1;
        }
        first_child.push(labels.len() as u32);

        let mut from_root = Box::new([NONE; 256]);
        for child in first_child[0]..first_child[1] {
            from_root[usize::from(labels[child as usize])] = child;
        }
        Some(Self { labels, first_child, values, from_root, repeated })
    }

    /// The index of the first key that equals an earlier one.
    pub fn repeated(&self) -> Option<u32> {
        self.repeated
    }

    /// The start of every search.
    pub fn root(&self) -> Node {
        Node(0)
    }

    /// The node that a byte leads to.
    #[inline]
    pub fn step(&self, Node(node): Node, byte: u8) -> Option<Node> {
        /// Up to this many children, a linear scan is as fast as bisection.
        const FEW: usize = 8;
        if node == 0 {
            let child = self.from_root[usize::from(byte)];
            return (child != NONE).then_some(Node(child));
        }
        let first = self.first_child[node as usize] as usize;
        let end = self.first_child[node as usize + 1] as usize;
        let labels = &self.labels[first..end];
        let place = if labels.len() <= FEW {
            labels.iter().position(|&label| label == byte)
        } else {
            labels.binary_search(&byte).ok()
        };
        place.map(|place| Node((first + place) as u32))
    }

    /// The value of the string that ends at a node.
    #[inline]
    pub fn value(&self, Node(node): Node) -> Option<u32> {
        let value = self.values[node as usize];
        (value != NONE).then_some(value)
    }

    /// The value of exactly this string.
    pub fn get(&self, key: &[u8]) -> Option<u32> {
        let mut node = self.root();
        for &byte in key {
            node = self.step(node, byte)?;
        }
        self.value(node)
    }

    /// The length of the longest key that the text starts with.
    pub fn longest_prefix(&self, text: &[u8]) -> Option<usize> {
        let mut node = self.root();
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            let Some(next) = self.step(node, byte) else { break };
            node = next;
            if self.value(node).is_some() {
                longest = Some(at + 1);
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::Trie;

    #[test]
    fn finds_what_it_holds_and_nothing_else() {
        let keys: Vec<String> =
            (0..3000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
        let bytes: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let trie = Trie::new(&bytes).unwrap();
        for (index, key) in bytes.iter().enumerate() {
            assert_eq!(trie.get(key), Some(index as u32));
            let shorter = &key[..key.len() - 1];
            assert_eq!(trie.get(shorter).is_some(), bytes.contains(&shorter));
        }
        assert_eq!(trie.get(b""), None);
        assert_eq!(trie.get(b"xyz"), None);
        assert_eq!(trie.repeated(), None);
        let trie = Trie::new(&[b"a", b"b", b"b", b"a"]).unwrap();
        assert_eq!((trie.repeated(), trie.get(b"b")), (Some(2), Some(1)));
    }

    #[test]
    fn takes_the_longest_prefix() {
        let trie = Trie::new(&[b"a", b"ab", b"abcd"]).unwrap();
        assert_eq!(trie.longest_prefix(b"abcx"), Some(2));
        assert_eq!(trie.longest_prefix(b"abcde"), Some(4));
        assert_eq!(trie.longest_prefix(b"b"), None);
        assert_eq!(Trie::new(&[]).unwrap().longest_prefix(b"a"), None);
    }
}
