// SPDX-License-Identifier: MIT
//
// Proves that ferry.h can be used from C++, by calling what programs call of it.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <ferry/ferry.h>

int main()
{
	const std::size_t size = 1 << 20;
	void *memory = ferry_malloc(size, FERRY_DDR | FERRY_ZERO);
	ferry_range range = {memory, size, FERRY_NODE_DDR, 0};
	ferry_result result;
	int failures = 0;

	if (!memory)
		return 1;
	std::memset(memory, 1, size);
	failures += ferry_migrate(&range, 1, &result, sizeof(result)) != 0;
	failures += ferry_advise(memory, size, FERRY_ADVICE_COLD) != 0;
	failures += ferry_advise(memory, size, FERRY_ADVICE_NONE) != 0;
	failures += ferry_advise(memory, size, static_cast<ferry_advice>(77)) != -EINVAL;
	failures += ferry_phase_begin("solve") != 0;
	failures += ferry_phase_end("solve") != 0;
	failures += ferry_phase_prefetch("solve") != 0;
	ferry_free(memory);
	std::printf("%d failures\n", failures);
	return failures > 0;
}
