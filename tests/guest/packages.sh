# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2079,SC2154
# What tests/guest/run needs: programs, a Debian kernel with its headers, an initramfs. Sourced; uses the runner's
# functions. Locking: whatever changes the cache happens under flock on its file `lock`, and a finished piece appears
# by a rename, so that readers need no lock.

readonly -A release_pattern=(
	[6.12]='6\.12\.[0-9]+\+deb12-amd64'
	[6.1]='6\.1\.0-[0-9]+-amd64'
)

# The source of the newer kernel, of which the guest's own kernels and the kernel's own tests are built.
readonly source_package=linux-source-6.12
readonly source_archive=/usr/src/$source_package.tar.xz

# Sets cache to a writable directory.
find_cache()
{
	cache=${FERRY_GUEST_CACHE:-/var/cache/ferry-guest}
	if [[ -z ${FERRY_GUEST_CACHE:-} ]] && ! { mkdir -p "$cache" && [[ -w $cache ]]; } 2>/dev/null; then
		cache=${XDG_CACHE_HOME:-$HOME/.cache}/ferry-guest
	fi
	mkdir -p "$cache" || die "cannot make the cache directory $cache (FERRY_GUEST_CACHE names another)"
	cache=$(cd -- "$cache" && pwd)
}

# Runs a function with its arguments under the cache's lock, in a subshell.
with_cache_locked() { ( flock 9; "$@" 9>&- ) 9>"$cache/lock"; }

# apt-get, quiet. The headers of 6.12 depend on its image; a chroot, which is not booted, needs no initrd for that and
# no care for power cuts, which together take most of the time.
apt()
{
	local options=(-qq -o DPkg::Lock::Timeout=600 -o APT::Sandbox::User=root) initrd=
	! ischroot || { options+=(-o DPkg::Options::=--force-unsafe-io); initrd=No; }
	env ${initrd:+INITRD=No} DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" "$@"
}

is_offered() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ "Candidate: "[^\(] ]]; }

# Installs packages as root, refreshing the package lists if that is what it takes; otherwise names them all.
install_packages()
{
	[[ $(id -u) = 0 ]] || die "missing packages; as root: apt-get install --no-install-recommends $*"
	say "installing $*"
	apt install -y --no-install-recommends "$@" >"$cache/apt.log" 2>&1 ||
		{ apt update && apt install -y --no-install-recommends "$@"; } >"$cache/apt.log" 2>&1 ||
		{ cat "$cache/apt.log" >&2; die "could not install: $*"; }
}

missing_tools()
{
	local pair
	for pair in qemu-system-x86_64:qemu-system-x86 cpio:cpio modprobe:kmod depmod:kmod xz:xz-utils; do
		command -v "${pair%:*}" >/dev/null || printf '%s\n' "${pair#*:}"
	done | sort -u
	# The package busybox has the same program, but linked to libraries the initramfs lacks.
	[[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1 || printf 'busybox-static\n'
}

prepare_tools()
{
	find_cache
	[[ -z $(missing_tools) ]] || with_cache_locked install_missing_tools || exit 2
}

install_missing_tools()
{
	local missing
	mapfile -t missing < <(missing_tools)
	[[ ${#missing[@]} = 0 ]] || install_packages "${missing[@]}"
}

# Releases of series $1 with headers installed, newest first.
with_headers()
{
	find /usr/src -maxdepth 1 -name 'linux-headers-*-amd64' -printf '%f\n' | sed 's/^linux-headers-//' |
		grep -xE "${release_pattern[$1]}" | sort -rV
}

# The newest release of series $1 that the archive offers.
newest_offered()
{
	apt-cache search -n '^linux-image-6' | cut -d ' ' -f 1 | sed 's/^linux-image-//' |
		grep -xE "${release_pattern[$1]}" | sort -rV | while read -r release; do
		if is_offered "linux-image-$release" && is_offered "linux-headers-$release"; then
			printf '%s\n' "$release"
			break
		fi
	done
}

# Sets vmlinuz and modules_base (what precedes /lib/modules) if release $1 is here, installed or in the cache.
find_image()
{
	local base
	for base in "" "$cache/$1"; do
		if [[ -r $base/boot/vmlinuz-$1 && -d $base/lib/modules/$1/kernel ]]; then
			vmlinuz=$base/boot/vmlinuz-$1 modules_base=$base
			return 0
		fi
	done
	return 1
}

# Unpacks release $1's image into the cache. Fails if the archive does not have it.
fetch_image()
{
	local dir
	find_image "$1" && return
	is_offered "linux-image-$1" || return
	say "fetching kernel $1"
	dir=$(mktemp -d "$cache/new.XXXXXX") || return
	if (cd "$dir" && apt download "linux-image-$1") >"$cache/apt.log" 2>&1 &&
		dpkg-deb -x "$dir"/linux-image-*.deb "$dir/image" && depmod -b "$dir/image" "$1" &&
		rm -rf "${cache:?}/$1" && chmod 755 "$dir/image" && mv "$dir/image" "$cache/$1"; then
		rm -rf "$dir"
		return 0
	fi
	cat "$cache/apt.log" >&2
	rm -rf "$dir"
	return 1
}

is_own_kernel() { [[ $1 = debug || $1 = kcsan ]]; }

# Finds or gets a kernel of series $1, or an own one, "debug" or "kcsan": the newest whose headers are installed and whose image can be had, else the
# newest that the archive offers, with its headers. Sets release, vmlinuz, modules_base.
prepare_kernel()
{
	if is_own_kernel "$1"; then
		release=$("$guest_dir/debug-kernel" "$1") || exit 2
		find_image "$release" || die "the $1 kernel $release is not complete"
		return
	fi
	for release in $(with_headers "$1"); do
		find_image "$release" && return
	done
	with_cache_locked get_kernel "$1" || exit 2
	for release in $(with_headers "$1"); do
		find_image "$release" && return
	done
	die "no Debian kernel $1 could be had"
}

get_kernel()
{
	local release
	for release in $(with_headers "$1"); do
		fetch_image "$release" && return
	done
	release=$(newest_offered "$1")
	if [[ -z $release && $(id -u) = 0 ]]; then
		apt update || return
		for release in $(with_headers "$1"); do
			fetch_image "$release" && return
		done
		release=$(newest_offered "$1")
	fi
	[[ -n $release ]] || { say "the package archive offers no linux-image for kernel $1 (apt-get update?)"; return 1; }
	[[ -d /usr/src/linux-headers-$release ]] || install_packages "linux-headers-$release"
	fetch_image "$release"
}

# The module files the initramfs needs, in the order to load them.
boot_modules()
{
	local name
	for name in virtio_pci 9pnet_virtio 9p overlay; do
		modprobe -d "${modules_base:-/}" -S "$release" --ignore-install --show-depends "$name" || return
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# Sets initramfs to one for $release, made from init, busybox and modules; its name carries a hash of all of them.
prepare_initramfs()
{
	local modules key
	modules=$(boot_modules) || die "kernel $release lacks a module the guest needs"
	key=$(printf '%s\n' "$modules" | xargs cat "$guest_dir/init" /bin/busybox | sha256sum | cut -c 1-16)
	initramfs=$cache/initramfs-$release-$key
	[[ -e $initramfs ]] || with_cache_locked make_initramfs || die "could not make $initramfs"
}

make_initramfs()
{
	local dir file target number=10
	[[ ! -e $initramfs ]] || return 0
	dir=$(mktemp -d "$cache/new.XXXXXX") || return
	mkdir -p "$dir"/root/{bin,modules,proc,sys,dev,lower,upper,newroot,runner}
	cp /bin/busybox "$dir/root/bin/" && cp "$guest_dir/init" "$dir/root/init" && chmod 755 "$dir/root/init"
	for file in $modules; do
		target=$dir/root/modules/$((number++))-$(basename "$file" | sed 's/\.ko.*/.ko/')
		case $file in
		*.ko) cp "$file" "$target" ;;
		*.ko.xz) xz -dc "$file" >"$target" ;;
		*.ko.zst) zstd -qdc "$file" >"$target" ;;
		*) say "cannot unpack $file"; false ;;
		esac || { rm -rf "$dir"; return 1; }
	done
	# Old ones may be about to be read by another runner.
	find "$cache" -maxdepth 1 -name 'initramfs-*' -mtime +7 -delete
	(cd "$dir/root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$dir/initramfs" &&
		mv "$dir/initramfs" "$initramfs"
	number=$?
	rm -rf "$dir"
	return $number
}

# Unpacks the kernel's sources into directory $1, or of these only the paths after it; the package need not be installed.
unpack_sources()
{
	local dir=$1 archive=$source_archive
	shift
	mkdir -p "$dir" || return
	if [[ ! -r $archive ]]; then
		is_offered "$source_package" || { [[ $(id -u) = 0 ]] && apt update; }
		(cd "$dir" && apt download "$source_package" && dpkg-deb -x "$source_package"_*.deb .) >&2 || return
		archive=$dir$source_archive
	fi
	tar -C "$dir" --strip-components=1 -xf "$archive" "${@/#/$source_package/}"
}
