/* SPDX-License-Identifier: MIT */
/*
 * Streaming copies (stream_copy.h), a function for each set of instructions,
 * compiled for it whatever the rest is compiled for. They call nothing, since
 * what they call may be out of place while they run (relocate.h).
 */
#include "migrate/stream_copy.h"

#include <stdint.h>

#define BLOCK 256 /* bytes a round: four lines are on their way at once */

/*
 * What is read is fetched this far ahead, a page, past the caches that have no use for
 * it: 15 % faster with the widest and the narrowest registers on AMD EPYC, and slower
 * with AVX2's. Past the end it is a hint about nothing.
 */
#define AHEAD 4096

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((always_inline)) static inline void fetch_ahead(const void *in)
{
	for (int at = 0; at < BLOCK; at += 64)
		_mm_prefetch((const char *)in + AHEAD + at, _MM_HINT_NTA);
}

__attribute__((target("avx512f"))) static void copy_avx512(void *to, const void *from,
							   size_t len)
{
	const __m512i *in = from;
	__m512i *out = to;

	for (; len; len -= BLOCK, in += 4, out += 4) {
		__m512i a = _mm512_load_si512(in), b = _mm512_load_si512(in + 1);
		__m512i c = _mm512_load_si512(in + 2), d = _mm512_load_si512(in + 3);

		fetch_ahead(in);
		_mm512_stream_si512(out, a);
		_mm512_stream_si512(out + 1, b);
		_mm512_stream_si512(out + 2, c);
		_mm512_stream_si512(out + 3, d);
	}
	_mm_sfence();
}

__attribute__((target("avx2"))) static void copy_avx2(void *to, const void *from,
						      size_t len)
{
	const __m256i *in = from;
	__m256i *out = to;

	for (; len; len -= BLOCK, in += 8, out += 8) {
		__m256i a = _mm256_load_si256(in), b = _mm256_load_si256(in + 1);
		__m256i c = _mm256_load_si256(in + 2), d = _mm256_load_si256(in + 3);
		__m256i e = _mm256_load_si256(in + 4), f = _mm256_load_si256(in + 5);
		__m256i g = _mm256_load_si256(in + 6), h = _mm256_load_si256(in + 7);

		_mm256_stream_si256(out, a);
		_mm256_stream_si256(out + 1, b);
		_mm256_stream_si256(out + 2, c);
		_mm256_stream_si256(out + 3, d);
		_mm256_stream_si256(out + 4, e);
		_mm256_stream_si256(out + 5, f);
		_mm256_stream_si256(out + 6, g);
		_mm256_stream_si256(out + 7, h);
	}
	_mm_sfence();
}

/* Every x86-64 CPU has it. */
static void copy_sse2(void *to, const void *from, size_t len)
{
	const __m128i *in = from;
	__m128i *out = to;

	for (; len; len -= BLOCK, in += 16, out += 16) {
		fetch_ahead(in);
		for (int i = 0; i < 16; i += 4) {
			__m128i a = _mm_load_si128(in + i);
			__m128i b = _mm_load_si128(in + i + 1);
			__m128i c = _mm_load_si128(in + i + 2);
			__m128i d = _mm_load_si128(in + i + 3);

			_mm_stream_si128(out + i, a);
			_mm_stream_si128(out + i + 1, b);
			_mm_stream_si128(out + i + 2, c);
			_mm_stream_si128(out + i + 3, d);
		}
	}
	_mm_sfence();
}

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f");
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}
#endif

#ifdef __aarch64__
/* LDNP and STNP: pairs of registers with a hint that the caches need them not. */
static void copy_neon(void *to, const void *from, size_t len)
{
	const char *in = from;
	char *out = to;

	for (; len; len -= 64, in += 64, out += 64)
		__asm__ volatile("ldnp q0, q1, [%0]\n\t"
				 "ldnp q2, q3, [%0, #32]\n\t"
				 "stnp q0, q1, [%1]\n\t"
				 "stnp q2, q3, [%1, #32]"
				 :
				 : "r"(in), "r"(out)
				 : "v0", "v1", "v2", "v3", "memory");
}
#endif

/* The loop must stay one: a compiler may make a call of memcpy(3) of it. */
static void copy_words(void *to, const void *from, size_t len)
{
	const volatile uint64_t *in = from;
	uint64_t *out = to;

	for (size_t i = 0; i < len / sizeof(*in); i++)
		out[i] = in[i];
}

static bool always(void)
{
	return true;
}

const struct stream_copy stream_copies[] = {
#ifdef __x86_64__
	{"avx512", has_avx512, copy_avx512}, {"avx2", has_avx2, copy_avx2},
	{"sse2", always, copy_sse2},
#endif
#ifdef __aarch64__
	{"neon", always, copy_neon},
#endif
	{"generic", always, copy_words},     {0},
};

const struct stream_copy *stream_copy_best(void)
{
	const struct stream_copy *copy = stream_copies;

	while (!copy->usable())
		copy++;
	return copy;
}
