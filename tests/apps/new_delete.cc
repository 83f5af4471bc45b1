// SPDX-License-Identifier: MIT
// Proves that all forms of C++'s operators new and delete use the preload
// library's malloc: under FERRY_POLICY=hbm each form's pages are in HBM, as the
// kernel tells. Without an HBM node it only runs them. One thread.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../where.h"

namespace
{
int failures;
const bool has_hbm = machine_has_hbm();

void check(void *ptr, std::size_t size, std::size_t alignment, const char *what)
{
	std::memset(ptr, 1, size);
	if (reinterpret_cast<std::uintptr_t>(ptr) % alignment) {
		std::fprintf(stderr, "%s of %zu: not aligned\n", what, size);
		failures++;
	}
	if (has_hbm && !all_hbm(ptr, size)) {
		std::fprintf(stderr, "%s of %zu: not in HBM\n", what, size);
		failures++;
	}
}

void plain(std::size_t size)
{
	const std::size_t least = size < 16 ? 8 : 16;
	void *p = ::operator new(size);
	check(p, size, least, "new");
	::operator delete(p);
	p = ::operator new(size, std::nothrow);
	check(p, size, least, "new nothrow");
	::operator delete(p, std::nothrow);
	p = ::operator new(size);
	check(p, size, least, "new, sized delete");
	::operator delete(p, size);
	p = ::operator new[](size);
	check(p, size, least, "new[]");
	::operator delete[](p);
	p = ::operator new[](size, std::nothrow);
	check(p, size, least, "new[] nothrow");
	::operator delete[](p, std::nothrow);
	p = ::operator new[](size);
	check(p, size, least, "new[], sized delete[]");
	::operator delete[](p, size);
}

void aligned(std::size_t size, std::size_t alignment)
{
	const std::align_val_t align{alignment};
	void *p = ::operator new(size, align);
	check(p, size, alignment, "aligned new");
	::operator delete(p, align);
	p = ::operator new(size, align, std::nothrow);
	check(p, size, alignment, "aligned new nothrow");
	::operator delete(p, align, std::nothrow);
	p = ::operator new(size, align);
	check(p, size, alignment, "aligned new, sized delete");
	::operator delete(p, size, align);
	p = ::operator new[](size, align);
	check(p, size, alignment, "aligned new[]");
	::operator delete[](p, align);
	p = ::operator new[](size, align, std::nothrow);
	check(p, size, alignment, "aligned new[] nothrow");
	::operator delete[](p, align, std::nothrow);
	p = ::operator new[](size, align);
	check(p, size, alignment, "aligned new[], sized delete[]");
	::operator delete[](p, size, align);
}

struct alignas(256) Wide {
	char bytes[1000];
};

void expressions()
{
	auto wide = std::make_unique<Wide[]>(100);
	check(wide.get(), 100 * sizeof(Wide), 256, "new of an aligned type");
	std::vector<double> vector;
	for (int i = 0; i < 300000; i++)
		vector.push_back(i);
	check(vector.data(), vector.size() * sizeof(double), 16, "std::vector");
	std::string text(5 << 20, 'x');
	check(text.data(), text.size(), 16, "std::string");
}

void failing()
{
	volatile std::size_t size = SIZE_MAX / 2 + 2;
	bool thrown = false;
	try {
		::operator delete(::operator new(size));
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	if (!thrown || ::operator new(size, std::nothrow)) {
		std::fprintf(stderr, "new of too much does not fail\n");
		failures++;
	}
}
} // namespace

int main()
{
	for (std::size_t size : {1, 24, 1000, 20000, 300000, 5000000}) {
		plain(size);
		for (std::size_t alignment = 16; alignment <= 65536; alignment *= 4)
			aligned(size, alignment);
	}
	expressions();
	failing();
	return failures ? 1 : 0;
}
