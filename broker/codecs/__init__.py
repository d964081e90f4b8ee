"""How a vector of float32 becomes bytes: a literal table of codecs, each applied chunk by chunk under zstd.

A payload is a run of chunks of `CHUNK` coordinates (the last one shorter). Each chunk is a little-endian uint32, the
length of what follows, and one zstd frame that declares its content size and carries a checksum. What a frame holds
is the codec's own affair, but its length lies in a range that follows from the number of coordinates alone, so a
receiver knows every size before it decompresses anything: a frame that declares another is refused unread.

docs/wire-format.md has the byte-level description; tests/golden holds payloads that must decode for ever.
"""

from broker.codecs.choices import AUTO, CHOICES, Choice, chosen, codec_named, require_choice
from broker.codecs.chunks import encode_chunk, open_frame, threshold
from broker.codecs.encoders import Encoder, encoder
from broker.codecs.forms import Form, Segment
from broker.codecs.frames import Bytes, Cutter, frames, segments, unframed
from broker.codecs.levels import BLOCK
from broker.codecs.lowrank import LowRank
from broker.codecs.payloads import Decoder, decode, decoded, encode, max_payload_bytes, open_segment
from broker.codecs.pieces import CHUNK, Dense, Packed, Piece, Sparse, Vector
from broker.codecs.table import CODECS, Codec

__all__ = [
    "AUTO",
    "BLOCK",
    "CHOICES",
    "CHUNK",
    "CODECS",
    "Bytes",
    "Choice",
    "Codec",
    "Cutter",
    "Decoder",
    "Dense",
    "Encoder",
    "Form",
    "LowRank",
    "Packed",
    "Piece",
    "Segment",
    "Sparse",
    "Vector",
    "chosen",
    "codec_named",
    "decode",
    "decoded",
    "encode",
    "encode_chunk",
    "encoder",
    "frames",
    "max_payload_bytes",
    "open_frame",
    "open_segment",
    "require_choice",
    "segments",
    "threshold",
    "unframed",
]
