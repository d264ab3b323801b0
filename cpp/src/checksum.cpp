// CRC-32C (Castagnoli, as iSCSI, ext4 and SSE4.2 have it) and XXH3 with 64 bits.
//
// The instructions of x86-64 (SSE4.2) and ARMv8 take 8 bytes each and have a latency of three
// cycles, so one chain of them is three times slower than the machine can go. A block is cut into
// three lanes that run beside each other and are joined by linearity: the checksum of a followed by
// b is the checksum of a, shifted over the length of b, xor that of b. The shift over a fixed length
// is a matrix over bits, kept as four tables of 256 words.
//
// Without the instructions: eight tables, eight bytes per step ("slicing by 8"). All tables are
// computed by the compiler.
#include "checksum.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#ifndef __APPLE__
#include <sys/auxv.h>
#endif
#endif

// Vendored; see its LICENSE. Inlined here, without streaming state, so nothing of it is exported or
// allocates.
#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#define XXH_NO_STDLIB
#include "../third_party/xxhash/xxhash.h"

namespace framegate::impl {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected

using Table = std::array<std::uint32_t, 256>;

constexpr std::uint32_t next_bit(std::uint32_t crc) {
    return (crc & 1) != 0 ? crc >> 1 ^ kPolynomial : crc >> 1;
}

// [0][b]: checksum of the byte b; [k][b]: of b followed by k zero bytes.
constexpr std::array<Table, 8> kSlices = [] {
    std::array<Table, 8> tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) {
            crc = next_bit(crc);
        }
        tables[0][byte] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const std::uint32_t before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
    return tables;
}();

std::uint64_t load(const unsigned char* from) {
    std::uint64_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
}

std::uint32_t software(std::uint32_t crc, const unsigned char* at, std::size_t bytes) {
    for (; bytes >= 8; bytes -= 8, at += 8) {
        const std::uint64_t value = load(at) ^ crc;
        crc = 0;
        for (std::size_t i = 0; i < 8; ++i) {
            crc ^= kSlices[7 - i][value >> (8 * i) & 0xff];
        }
    }
    for (; bytes != 0; --bytes, ++at) {
        crc = crc >> 8 ^ kSlices[0][(crc ^ *at) & 0xff];
    }
    return crc;
}
static_assert(std::endian::native == std::endian::little, "load() feeds bytes in memory order");

#if defined(__x86_64__) || defined(__aarch64__)
#define FG_CRC32C_HARDWARE 1

// The shift of a checksum over `length` zero bytes, a power of two of at least 8.
constexpr std::array<Table, 4> shift_tables(std::size_t length) {
    using Matrix = std::array<std::uint32_t, 32>;  // column i: where bit i goes
    const auto apply = [](const Matrix& matrix, std::uint32_t vector) {
        std::uint32_t sum = 0;
        for (std::size_t i = 0; i < 32; ++i) {
            sum ^= (vector >> i & 1) != 0 ? matrix[i] : 0;
        }
        return sum;
    };
    Matrix matrix{};  // over one bit
    for (std::size_t i = 0; i < 32; ++i) {
        matrix[i] = next_bit(std::uint32_t{1} << i);
    }
    for (std::size_t bits = 1; bits < 8 * length; bits *= 2) {  // squared: over twice as many
        Matrix twice{};
        for (std::size_t i = 0; i < 32; ++i) {
            twice[i] = apply(matrix, matrix[i]);
        }
        matrix = twice;
    }
    std::array<Table, 4> tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        for (std::uint32_t k = 0; k < 4; ++k) {
            tables[k][byte] = apply(matrix, byte << (8 * k));
        }
    }
    return tables;
}

std::uint32_t shift(const std::array<Table, 4>& tables, std::uint32_t crc) {
    return tables[0][crc & 0xff] ^ tables[1][crc >> 8 & 0xff] ^ tables[2][crc >> 16 & 0xff] ^
           tables[3][crc >> 24];
}

// Lanes of 8 KiB keep the joining below a percent; lanes of 256 bytes serve what is left.
constexpr std::size_t kLongLane = 8192;
constexpr std::size_t kShortLane = 256;
constexpr std::array<Table, 4> kLongShift = shift_tables(kLongLane);
constexpr std::array<Table, 4> kShortShift = shift_tables(kShortLane);

#if defined(__x86_64__)
#define FG_CRC32C_TARGET __attribute__((target("sse4.2,crc32")))
bool has_instructions() {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_SSE4_2) != 0;
}
FG_CRC32C_TARGET inline std::uint64_t step8(std::uint64_t crc, std::uint64_t value) {
    return __builtin_ia32_crc32di(crc, value);
}
FG_CRC32C_TARGET inline std::uint32_t step1(std::uint32_t crc, unsigned char value) {
    return __builtin_ia32_crc32qi(crc, value);
}
#else
#define FG_CRC32C_TARGET __attribute__((target("+crc")))
bool has_instructions() {
#ifdef __APPLE__
    return true;  // every processor of Apple's that runs macOS
#else
    constexpr unsigned long kCrc32 = 1UL << 7;  // HWCAP_CRC32
    return (getauxval(AT_HWCAP) & kCrc32) != 0;
#endif
}
FG_CRC32C_TARGET inline std::uint64_t step8(std::uint64_t crc, std::uint64_t value) {
    return __crc32cd(static_cast<std::uint32_t>(crc), value);
}
FG_CRC32C_TARGET inline std::uint32_t step1(std::uint32_t crc, unsigned char value) {
    return __crc32cb(crc, value);
}
#endif

FG_CRC32C_TARGET std::uint32_t three_lanes(std::uint32_t crc, const unsigned char* at,
                                           std::size_t lane, const std::array<Table, 4>& tables) {
    std::uint64_t first = crc;
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    for (std::size_t i = 0; i < lane; i += 8) {
        first = step8(first, load(at + i));
        second = step8(second, load(at + lane + i));
        third = step8(third, load(at + 2 * lane + i));
    }
    const std::uint32_t joined =
        shift(tables, static_cast<std::uint32_t>(first)) ^ static_cast<std::uint32_t>(second);
    return shift(tables, joined) ^ static_cast<std::uint32_t>(third);
}

FG_CRC32C_TARGET std::uint32_t hardware(std::uint32_t crc, const unsigned char* at,
                                        std::size_t bytes) {
    for (; bytes >= 3 * kLongLane; bytes -= 3 * kLongLane, at += 3 * kLongLane) {
        crc = three_lanes(crc, at, kLongLane, kLongShift);
    }
    for (; bytes >= 3 * kShortLane; bytes -= 3 * kShortLane, at += 3 * kShortLane) {
        crc = three_lanes(crc, at, kShortLane, kShortShift);
    }
    std::uint64_t wide = crc;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        wide = step8(wide, load(at));
    }
    crc = static_cast<std::uint32_t>(wide);
    for (; bytes != 0; --bytes, ++at) {
        crc = step1(crc, *at);
    }
    return crc;
}
#endif

}  // namespace

bool crc32c_is_in_hardware() {
#ifdef FG_CRC32C_HARDWARE
    // What the processor said, once: asking again costs a trap on a virtual machine. Not a truth
    // that anybody could share or change, so it may be outside of the segment.
    static std::atomic<std::uint8_t> known{0};
    std::uint8_t answer = known.load(std::memory_order_relaxed);  // relaxed: it stands for itself
    if (answer == 0) [[unlikely]] {
        answer = has_instructions() ? 2 : 1;
        known.store(answer, std::memory_order_relaxed);  // relaxed: any thread finds the same
    }
    return answer == 2;
#else
    return false;
#endif
}

std::uint32_t crc32c_in_software(const void* data, std::size_t bytes) {
    return ~software(~std::uint32_t{0}, static_cast<const unsigned char*>(data), bytes);
}

std::uint32_t crc32c(const void* data, std::size_t bytes) {
#ifdef FG_CRC32C_HARDWARE
    if (crc32c_is_in_hardware()) {
        return ~hardware(~std::uint32_t{0}, static_cast<const unsigned char*>(data), bytes);
    }
#endif
    return crc32c_in_software(data, bytes);
}

std::uint64_t checksum(std::uint32_t kind, const void* data, std::size_t bytes) {
    switch (kind) {
        case FG_CHECKSUM_CRC32C:
            return crc32c(data, bytes);
        case FG_CHECKSUM_XXH3:
            return XXH3_64bits(data, bytes);
        default:
            return 0;
    }
}

}  // namespace framegate::impl
