/* Chains of the CPU's own dot-product instructions, to compare emulated ones with.
 *
 * Each lane function computes d[i] = op(... op(op(c[i], a[0][i], b[0][i]), a[1][i], b[1][i]) ...) for n lanes, n a multiple
 * of the lanes of a 512-bit register. A lane is one output: of 32 bits (operands packed: 2 bfloat16, 4 bytes, 2 int16), or
 * of 16 bits (one half). Each tile function computes one tile product d = c + a x b.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LANES(NAME, TARGET, WORD, LOAD, OP, STORE)                                                     \
    __attribute__((target(TARGET))) void NAME(long n, long steps, const WORD *a, const WORD *b,        \
                                              const WORD *c, WORD *d) {                                \
        const long lanes = 64 / sizeof(WORD);                                                          \
        for (long i = 0; i < n; i += lanes) {                                                          \
            __m512i s = _mm512_loadu_si512(c + i);                                                     \
            for (long k = 0; k < steps; k++) {                                                         \
                __m512i x = _mm512_loadu_si512(a + k * n + i), y = _mm512_loadu_si512(b + k * n + i);  \
                s = STORE(OP(LOAD(s), x, y));                                                          \
            }                                                                                          \
            _mm512_storeu_si512(d + i, s);                                                             \
        }                                                                                              \
    }

#define SAME(x) (x)
#define BF16(s, x, y) _mm512_dpbf16_ps(s, (__m512bh)(x), (__m512bh)(y))
LANES(vdpbf16ps, "avx512f,avx512bf16", uint32_t, _mm512_castsi512_ps, BF16, _mm512_castps_si512)
LANES(vpdpbusd, "avx512f,avx512vnni", uint32_t, SAME, _mm512_dpbusd_epi32, SAME)
LANES(vpdpbusds, "avx512f,avx512vnni", uint32_t, SAME, _mm512_dpbusds_epi32, SAME)
LANES(vpdpwssd, "avx512f,avx512vnni", uint32_t, SAME, _mm512_dpwssd_epi32, SAME)
LANES(vpdpwssds, "avx512f,avx512vnni", uint32_t, SAME, _mm512_dpwssds_epi32, SAME)

#define SINGLE_RN(s, x, y) _mm512_fmadd_round_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), s, 8)
#define SINGLE_RD(s, x, y) _mm512_fmadd_round_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), s, 9)
#define SINGLE_RU(s, x, y) _mm512_fmadd_round_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), s, 10)
#define SINGLE_RZ(s, x, y) _mm512_fmadd_round_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), s, 11)
LANES(vfmaddps, "avx512f", uint32_t, _mm512_castsi512_ps, SINGLE_RN, _mm512_castps_si512)
LANES(vfmaddps_rd, "avx512f", uint32_t, _mm512_castsi512_ps, SINGLE_RD, _mm512_castps_si512)
LANES(vfmaddps_ru, "avx512f", uint32_t, _mm512_castsi512_ps, SINGLE_RU, _mm512_castps_si512)
LANES(vfmaddps_rz, "avx512f", uint32_t, _mm512_castsi512_ps, SINGLE_RZ, _mm512_castps_si512)

#define HALF(s, x, y, MODE) _mm512_fmadd_round_ph(_mm512_castsi512_ph(x), _mm512_castsi512_ph(y), s, MODE)
#define HALF_RN(s, x, y) HALF(s, x, y, 8)
#define HALF_RD(s, x, y) HALF(s, x, y, 9)
#define HALF_RU(s, x, y) HALF(s, x, y, 10)
#define HALF_RZ(s, x, y) HALF(s, x, y, 11)
#define HALF_TARGET "avx512f,avx512bw,avx512vl,avx512fp16"
LANES(vfmaddph, HALF_TARGET, uint16_t, _mm512_castsi512_ph, HALF_RN, _mm512_castph_si512)
LANES(vfmaddph_rd, HALF_TARGET, uint16_t, _mm512_castsi512_ph, HALF_RD, _mm512_castph_si512)
LANES(vfmaddph_ru, HALF_TARGET, uint16_t, _mm512_castsi512_ph, HALF_RU, _mm512_castph_si512)
LANES(vfmaddph_rz, HALF_TARGET, uint16_t, _mm512_castsi512_ph, HALF_RZ, _mm512_castph_si512)

/* The state of tiles is large, so that Linux gives it only to those that ask. */
int tiles_allowed(void) {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
}

struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

/* d = c + a x b of m x n, k words of 32 bits a row of a; b holds k rows of n words. At most 16 of each. */
#define TILE(NAME, TARGET, OP)                                                                          \
    __attribute__((target("amx-tile," TARGET))) void NAME(long m, long n, long k, const uint32_t *a,    \
                                                          const uint32_t *b, const uint32_t *c,         \
                                                          uint32_t *d) {                                \
        struct shapes s;                                                                                \
        memset(&s, 0, sizeof s);                                                                        \
        s.palette = 1;                                                                                  \
        s.rows[0] = m, s.bytes[0] = 4 * n;                                                              \
        s.rows[1] = m, s.bytes[1] = 4 * k;                                                              \
        s.rows[2] = k, s.bytes[2] = 4 * n;                                                              \
        _tile_loadconfig(&s);                                                                           \
        _tile_loadd(0, c, 4 * n);                                                                       \
        _tile_loadd(1, a, 4 * k);                                                                       \
        _tile_loadd(2, b, 4 * n);                                                                       \
        OP(0, 1, 2);                                                                                    \
        _tile_stored(0, d, 4 * n);                                                                      \
        _tile_release();                                                                                \
    }

TILE(tdpbf16ps, "amx-bf16", _tile_dpbf16ps)
TILE(tdpbssd, "amx-int8", _tile_dpbssd)
TILE(tdpbsud, "amx-int8", _tile_dpbsud)
TILE(tdpbusd, "amx-int8", _tile_dpbusd)
TILE(tdpbuud, "amx-int8", _tile_dpbuud)
