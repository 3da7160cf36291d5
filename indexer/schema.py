"""The catalog's tables, which versions of them this software reads, and which texts they take."""

APPLICATION_ID = 0x72747276  # "rtrv", in the SQLite header: tells a catalog from any other database
FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE spaces (               -- one embedding space per model
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model_name TEXT NOT NULL,       -- what a person calls it, and how it is opened again
    model_fingerprint TEXT NOT NULL UNIQUE,
    dim INTEGER NOT NULL,
    metrics TEXT NOT NULL DEFAULT '{}'  -- what a judgement of the model came to: a JSON object, {} = none yet
) STRICT;

CREATE TABLE generations (          -- the newest row is the index: catalog state and live space
    number INTEGER PRIMARY KEY,
    space_id INTEGER NOT NULL REFERENCES spaces,
    created_ns INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;

CREATE TABLE sources (              -- the galleries that have been synced
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    key_prefix TEXT NOT NULL
) STRICT;

CREATE TABLE pictures (             -- visible in generation g: added <= g and (removed is null or removed > g)
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused
    key TEXT NOT NULL,
    source_id INTEGER REFERENCES sources,  -- null: given by an upsert, no sync may touch it
    path TEXT,                      -- of the file; null where it is <source>/<key without prefix>
    content_hash TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    scanned_ns INTEGER NOT NULL,    -- when the scan that saw this size and mtime began
    box TEXT,                       -- the part that was embedded, as the caller writes it; null = all
    added INTEGER NOT NULL,
    removed INTEGER
) STRICT;
CREATE UNIQUE INDEX pictures_live ON pictures (key) WHERE removed IS NULL;
CREATE INDEX pictures_source ON pictures (source_id) WHERE removed IS NULL;
CREATE INDEX pictures_added ON pictures (added);
CREATE INDEX pictures_removed ON pictures (removed) WHERE removed IS NOT NULL;

CREATE TABLE attributes (           -- change without touching vectors; valid in since <= g < until
    picture_id INTEGER NOT NULL REFERENCES pictures,
    product_id TEXT,
    label TEXT,
    metadata TEXT NOT NULL,         -- a JSON object
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (picture_id, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX attributes_since ON attributes (since);
CREATE INDEX attributes_until ON attributes (until) WHERE until IS NOT NULL;
CREATE INDEX attributes_product ON attributes (product_id) WHERE until IS NULL AND product_id IS NOT NULL;

CREATE TABLE segments (             -- sealed, immutable files of vectors
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space_id INTEGER NOT NULL REFERENCES spaces,
    file TEXT NOT NULL,
    rows INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    frame_checksum INTEGER NOT NULL,  -- crc32 of what surrounds the vectors, checked at every opening
    merged_into INTEGER REFERENCES segments  -- the one that holds its vectors now; its own file is gone. Null: none
) STRICT;
CREATE INDEX segments_whole ON segments (space_id) WHERE merged_into IS NULL;

CREATE TABLE approximations (       -- a smaller index in front of a segment's vectors; without it searches take longer
    segment_id INTEGER PRIMARY KEY REFERENCES segments ON DELETE CASCADE,
    file TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL,      -- crc32 of the file
    recipe TEXT NOT NULL,           -- a FAISS factory string
    effort INTEGER NOT NULL,        -- lists looked into, or breadth of the walk through a graph
    pool INTEGER NOT NULL,          -- for each hit, how many are scored again by their vectors
    recall REAL NOT NULL,           -- that it was tuned to reach
    measured_recall REAL NOT NULL   -- of the true ten nearest, 0 to 1
) STRICT;

CREATE TABLE settings (             -- how segments are to be searched: recipe, recall, memory
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE embeddings (           -- where a picture's vector is: in a segment, or here until it is sealed
    picture_id INTEGER NOT NULL REFERENCES pictures,
    space_id INTEGER NOT NULL REFERENCES spaces,
    segment_id INTEGER REFERENCES segments,
    vector BLOB,                    -- (D,) float16, little-endian; null once sealed, or if there is none
    checksum INTEGER NOT NULL,      -- crc32 of those bytes; 0 where the picture could not be embedded
    UNIQUE (picture_id, space_id)
) STRICT;
CREATE INDEX embeddings_unsealed ON embeddings (space_id, picture_id) WHERE segment_id IS NULL;
CREATE INDEX embeddings_segment ON embeddings (segment_id) WHERE segment_id IS NOT NULL;

CREATE TABLE skipped (              -- pictures that could not be decoded; remembered until their file changes
    source_id INTEGER NOT NULL REFERENCES sources,
    key TEXT NOT NULL,
    reason TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (source_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE feedback (             -- what people said of hits; of each source the last word on a query and a picture
    query_hash TEXT NOT NULL,       -- xxh3_128 of the query picture's bytes
    query_box TEXT NOT NULL,        -- the part that was searched with, as the caller writes it; '' = all
    picture_id INTEGER NOT NULL REFERENCES pictures,
    source TEXT NOT NULL,           -- who said so; '' = whoever runs the index
    query_path TEXT NOT NULL,       -- of the query picture's file: absolute, or pictures/... where it is kept here
    is_relevant INTEGER NOT NULL,
    given_ns INTEGER NOT NULL,
    PRIMARY KEY (query_hash, query_box, picture_id, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX feedback_picture ON feedback (picture_id);
"""


def is_storable(text: str) -> bool:
    """Whether a text is UTF-8; one with half a surrogate pair is not, and so it is the key of no picture."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
