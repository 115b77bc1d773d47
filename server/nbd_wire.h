// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

// The NBD protocol as bytes: numbers and structures of the specification (doc/proto.md of the
// NetworkBlockDevice project). The only place in the server that knows byte order. Names keep the
// specification's words; the trailing comment is its identifier.
namespace nbdm::wire {

// An unsigned integer as it stands on the wire: big-endian, alignment 1.
template <typename T>
class Big {
  public:
    Big() = default;
    // NOLINTNEXTLINE(google-explicit-constructor): wire structures read like plain ones
    constexpr Big(T value) noexcept {
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            bytes_[i] = static_cast<std::uint8_t>(value >> (8 * (sizeof(T) - 1 - i)));
        }
    }
    // NOLINTNEXTLINE(google-explicit-constructor)
    constexpr operator T() const noexcept {
        std::uint64_t value = 0;
        for (const std::uint8_t byte : bytes_) {
            value = (value << 8) | byte;
        }
        return static_cast<T>(value);
    }

  private:
    std::array<std::uint8_t, sizeof(T)> bytes_{};
};
using Big16 = Big<std::uint16_t>;
using Big32 = Big<std::uint32_t>;
using Big64 = Big<std::uint64_t>;

template <typename T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    return std::as_bytes(std::span<const T, 1>(&value, 1));
}
template <typename T>
[[nodiscard]] std::span<std::byte> writable_bytes_of(T& value) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    return std::as_writable_bytes(std::span<T, 1>(&value, 1));
}
// `from` holds at least sizeof(T) bytes.
template <typename T>
[[nodiscard]] T load(std::span<const std::byte> from) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    T value;
    std::memcpy(&value, from.data(), sizeof(T));
    return value;
}

// --- Handshake ---

constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // NBDMAGIC
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // IHAVEOPT
constexpr std::uint64_t kOptionReplyMagic = 0x3e889045565a9;

constexpr std::uint16_t kFixedNewstyle = 1 << 0;  // NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_C_...
constexpr std::uint16_t kNoZeroes = 1 << 1;       // NBD_FLAG_NO_ZEROES, NBD_FLAG_C_NO_ZEROES

struct Greeting {
    Big64 init_magic = kInitMagic;
    Big64 option_magic = kOptionMagic;
    Big16 flags = kFixedNewstyle | kNoZeroes;
};
struct OptionHeader {
    Big64 magic;
    Big32 option;
    Big32 length;
};
struct OptionReplyHeader {
    Big64 magic = kOptionReplyMagic;
    Big32 option;
    Big32 type;
    Big32 length;
};
struct ExportNameReply {
    Big64 size_bytes;
    Big16 flags;
};
constexpr std::size_t kExportNamePaddingBytes = 124;

enum class Option : std::uint32_t {
    export_name = 1,        // NBD_OPT_EXPORT_NAME
    abort = 2,              // NBD_OPT_ABORT
    list = 3,               // NBD_OPT_LIST
    starttls = 5,           // NBD_OPT_STARTTLS
    info = 6,               // NBD_OPT_INFO
    go = 7,                 // NBD_OPT_GO
    structured_reply = 8,   // NBD_OPT_STRUCTURED_REPLY
    list_meta_context = 9,  // NBD_OPT_LIST_META_CONTEXT
    set_meta_context = 10,  // NBD_OPT_SET_META_CONTEXT
    extended_headers = 11,  // NBD_OPT_EXTENDED_HEADERS
};

constexpr std::uint32_t kErrorBit = std::uint32_t{1} << 31;
enum class OptionReply : std::uint32_t {
    ack = 1,                                           // NBD_REP_ACK
    server = 2,                                        // NBD_REP_SERVER
    info = 3,                                          // NBD_REP_INFO
    meta_context = 4,                                  // NBD_REP_META_CONTEXT
    error_unsupported = kErrorBit | 1,                 // NBD_REP_ERR_UNSUP
    error_policy = kErrorBit | 2,                      // NBD_REP_ERR_POLICY
    error_invalid = kErrorBit | 3,                     // NBD_REP_ERR_INVALID
    error_unknown = kErrorBit | 6,                     // NBD_REP_ERR_UNKNOWN
    error_too_big = kErrorBit | 9,                     // NBD_REP_ERR_TOO_BIG
    error_extended_headers_required = kErrorBit | 10,  // NBD_REP_ERR_EXT_HEADER_REQD
};

enum class Info : std::uint16_t {
    export_ = 0,      // NBD_INFO_EXPORT  NOLINT: a keyword
    name = 1,         // NBD_INFO_NAME
    description = 2,  // NBD_INFO_DESCRIPTION
    block_size = 3,   // NBD_INFO_BLOCK_SIZE
};
constexpr std::size_t kInfoTypes = 4;
struct InfoExport {
    Big16 type = static_cast<std::uint16_t>(Info::export_);
    Big64 size_bytes;
    Big16 flags;
};
struct InfoBlockSize {
    Big16 type = static_cast<std::uint16_t>(Info::block_size);
    Big32 minimum_bytes;
    Big32 preferred_bytes;
    Big32 maximum_bytes;
};

// The specification's limit for export names, descriptions and context queries.
constexpr std::size_t kMaxStringBytes = 4096;

// --- Transmission ---

constexpr std::uint16_t kHasFlags = 1 << 0;         // NBD_FLAG_HAS_FLAGS
constexpr std::uint16_t kReadOnly = 1 << 1;         // NBD_FLAG_READ_ONLY
constexpr std::uint16_t kSendFlush = 1 << 2;        // NBD_FLAG_SEND_FLUSH
constexpr std::uint16_t kSendFua = 1 << 3;          // NBD_FLAG_SEND_FUA
constexpr std::uint16_t kSendTrim = 1 << 5;         // NBD_FLAG_SEND_TRIM
constexpr std::uint16_t kSendWriteZeroes = 1 << 6;  // NBD_FLAG_SEND_WRITE_ZEROES
constexpr std::uint16_t kSendDf = 1 << 7;           // NBD_FLAG_SEND_DF
constexpr std::uint16_t kCanMultiConn = 1 << 8;     // NBD_FLAG_CAN_MULTI_CONN
constexpr std::uint16_t kSendCache = 1 << 10;       // NBD_FLAG_SEND_CACHE
constexpr std::uint16_t kSendFastZero = 1 << 11;    // NBD_FLAG_SEND_FAST_ZERO
constexpr std::uint16_t kStatusPayload = 1 << 12;   // NBD_FLAG_BLOCK_STATUS_PAYLOAD

enum class Command : std::uint16_t {
    read = 0,          // NBD_CMD_READ
    write = 1,         // NBD_CMD_WRITE
    disconnect = 2,    // NBD_CMD_DISC
    flush = 3,         // NBD_CMD_FLUSH
    trim = 4,          // NBD_CMD_TRIM
    cache = 5,         // NBD_CMD_CACHE
    write_zeroes = 6,  // NBD_CMD_WRITE_ZEROES
    block_status = 7,  // NBD_CMD_BLOCK_STATUS
};

constexpr std::uint16_t kFua = 1 << 0;            // NBD_CMD_FLAG_FUA
constexpr std::uint16_t kNoHole = 1 << 1;         // NBD_CMD_FLAG_NO_HOLE
constexpr std::uint16_t kDf = 1 << 2;             // NBD_CMD_FLAG_DF
constexpr std::uint16_t kReqOne = 1 << 3;         // NBD_CMD_FLAG_REQ_ONE
constexpr std::uint16_t kFastZero = 1 << 4;       // NBD_CMD_FLAG_FAST_ZERO
constexpr std::uint16_t kPayloadLength = 1 << 5;  // NBD_CMD_FLAG_PAYLOAD_LEN

constexpr std::uint32_t kRequestMagic = 0x25609513;          // NBD_REQUEST_MAGIC
constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;      // NBD_SIMPLE_REPLY_MAGIC
constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;  // NBD_STRUCTURED_REPLY_MAGIC
constexpr std::uint32_t kExtendedRequestMagic = 0x21e41c71;  // NBD_EXTENDED_REQUEST_MAGIC
constexpr std::uint32_t kExtendedReplyMagic = 0x6e8a278c;    // NBD_EXTENDED_REPLY_MAGIC

struct RequestHeader {
    Big32 magic;
    Big16 flags;
    Big16 command;
    Big64 cookie;
    Big64 offset;
    Big32 length;
};
static_assert(sizeof(RequestHeader) == 28);
struct ExtendedRequestHeader {
    Big32 magic;
    Big16 flags;
    Big16 command;
    Big64 cookie;
    Big64 offset;
    Big64 length;
};
static_assert(sizeof(ExtendedRequestHeader) == 32);
// The payload of a block status request; context ids (Big32) follow.
struct BlockStatusPayload {
    Big64 length;
};

struct SimpleReply {
    Big32 magic = kSimpleReplyMagic;
    Big32 error;
    Big64 cookie;
};
static_assert(sizeof(SimpleReply) == 16);

constexpr std::uint16_t kChunkDone = 1 << 0;  // NBD_REPLY_FLAG_DONE
enum class Chunk : std::uint16_t {
    none = 0,                   // NBD_REPLY_TYPE_NONE
    offset_data = 1,            // NBD_REPLY_TYPE_OFFSET_DATA
    offset_hole = 2,            // NBD_REPLY_TYPE_OFFSET_HOLE
    block_status = 5,           // NBD_REPLY_TYPE_BLOCK_STATUS
    extended_block_status = 6,  // NBD_REPLY_TYPE_BLOCK_STATUS_EXT
    error = (1 << 15) | 1,      // NBD_REPLY_TYPE_ERROR
};
struct ChunkHeader {
    Big32 magic = kStructuredReplyMagic;
    Big16 flags;
    Big16 type;
    Big64 cookie;
    Big32 length;
};
static_assert(sizeof(ChunkHeader) == 20);
struct ExtendedChunkHeader {
    Big32 magic = kExtendedReplyMagic;
    Big16 flags;
    Big16 type;
    Big64 cookie;
    Big64 offset;  // the request's
    Big64 length;
};
static_assert(sizeof(ExtendedChunkHeader) == 32);

// What stands between a chunk's header and its data.
struct NoFields {};
struct OffsetDataFields {
    Big64 offset;
};
struct OffsetHoleFields {
    Big64 offset;
    Big32 hole_bytes;
};
struct ErrorFields {
    Big32 error;
    Big16 message_bytes;
};
struct BlockStatusFields {
    Big32 context_id;
};
struct BlockDescriptor {
    Big32 length;
    Big32 status;
};
static_assert(sizeof(BlockDescriptor) == 8);
struct ExtendedBlockStatusFields {
    Big32 context_id;
    Big32 descriptors;
};
struct ExtendedBlockDescriptor {
    Big64 length;
    Big64 status;
};
static_assert(sizeof(ExtendedBlockDescriptor) == 16);

constexpr std::uint32_t kStateHole = 1 << 0;   // NBD_STATE_HOLE
constexpr std::uint32_t kStateZero = 1 << 1;   // NBD_STATE_ZERO
constexpr std::uint32_t kStateDirty = 1 << 0;  // of the dirty-bitmap contexts

enum class Error : std::uint32_t {
    none = 0,
    perm = 1,            // NBD_EPERM
    io = 5,              // NBD_EIO
    no_memory = 12,      // NBD_ENOMEM
    invalid = 22,        // NBD_EINVAL
    no_space = 28,       // NBD_ENOSPC
    overflow = 75,       // NBD_EOVERFLOW
    not_supported = 95,  // NBD_ENOTSUP
    shutdown = 108,      // NBD_ESHUTDOWN
};

// The wire can only carry a few causes; the true errno belongs in the log.
[[nodiscard]] Error error_from_errno(int error) noexcept;

}  // namespace nbdm::wire
