"""How a vector of float32 becomes bytes: a literal table of codecs, each applied chunk by chunk under zstd.

A payload is a run of chunks of `CHUNK` coordinates (the last one shorter). Each chunk is a little-endian uint32, the
length of what follows, and one zstd frame that declares its content size and carries a checksum. What a frame holds
is the codec's own affair, but its length lies in a range that follows from the number of coordinates alone, so a
receiver knows every size before it decompresses anything: a frame that declares another is refused unread.

docs/wire-format.md has the byte-level description; tests/golden holds payloads that must decode for ever.
"""

from broker.codecs.chunks import encode_chunk, open_frame, threshold
from broker.codecs.forms import Form, Segment
from broker.codecs.frames import Bytes, Cutter, frames, segments
from broker.codecs.levels import BLOCK
from broker.codecs.payloads import Decoder, decode, decoded, encode, max_payload_bytes, open_segment
from broker.codecs.pieces import CHUNK, Dense, Packed, Piece, Sparse, Vector
from broker.codecs.table import CODECS, Codec, codec_named

__all__ = [
    "BLOCK",
    "CHUNK",
    "CODECS",
    "Bytes",
    "Codec",
    "Cutter",
    "Decoder",
    "Dense",
    "Form",
    "Packed",
    "Piece",
    "Segment",
    "Sparse",
    "Vector",
    "codec_named",
    "decode",
    "decoded",
    "encode",
    "encode_chunk",
    "frames",
    "max_payload_bytes",
    "open_frame",
    "open_segment",
    "segments",
    "threshold",
]
