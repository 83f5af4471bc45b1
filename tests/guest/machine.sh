# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2054,SC2154
# QEMU's arguments for tests/guest/run: the machine, its nodes, distances and HMAT. Sourced, with the runner's variables.

# A memory hot-plug block of x86-64: nodes that do not share one are simple to reason about.
readonly block=$((128 << 20))

# Checks --ddr and --hbm; sets ddr_node and hbm_node (bytes of one node) and clusters (DDR nodes, each with one HBM
# node beside it, or none).
machine_sizes()
{
	case $topology in two | one) clusters=1 ;; snc4) clusters=4 ;; esac
	ddr_node=$(node_size --ddr "$ddr") || exit
	hbm_node=0
	[[ $topology = one ]] || hbm_node=$(node_size --hbm "${hbm:-1G}") || exit
	[[ $((ddr_node * clusters)) -ge $((512 << 20)) ]] || die "--ddr $ddr: the guest needs 512M at least"
}

# Prints the bytes of one of $clusters nodes that share size $2 of option $1.
node_size()
{
	local bytes
	bytes=$(numfmt --from=iec "${2^^}" 2>/dev/null) || die "$1 $2: must be a size, like 512M or 2G"
	[[ $bytes -gt 0 && $((bytes % (block * clusters))) = 0 ]] ||
		die "$1 $2: must be a multiple of $((block * clusters >> 20))M in topology $topology"
	printf '%s\n' $((bytes / clusters))
}

# The HBM node beside DDR node $1. In reverse order, so that nothing can find it by adding a constant to the index.
hbm_of() { printf '%s\n' $((2 * clusters - 1 - $1)); }

# Adds memory of $2 bytes as node $1, with the further -numa properties $3.
add_node()
{
	qemu+=(-object "memory-backend-ram,id=mem$1,size=$2" -numa "node,nodeid=$1,memdev=mem$1,$3")
}

# Adds HMAT latency ($3, ns) and bandwidth ($4, MB/s) from initiator $1 to target $2.
add_hmat()
{
	local path="initiator=$1,target=$2,hierarchy=memory"
	qemu+=(-numa "hmat-lb,$path,data-type=access-latency,latency=$3"
		-numa "hmat-lb,$path,data-type=access-bandwidth,bandwidth=$4M")
}

# Nodes, distances (as on a Xeon Max in SNC4 flat mode) and HMAT. DDR nodes, which have the CPUs, come first: Linux
# numbers nodes in this order.
add_nodes()
{
	local d e
	for ((d = 0; d < clusters; d++)); do
		add_node "$d" "$ddr_node" "cpus=$((d * cpus / clusters))-$(((d + 1) * cpus / clusters - 1)),initiator=$d"
	done
	for ((d = clusters - 1; d >= 0; d--)); do
		add_node "$(hbm_of "$d")" "$hbm_node" "initiator=$d"
	done
	for ((d = 0; d < clusters; d++)); do
		for ((e = 0; e < clusters; e++)); do
			if [[ $d = "$e" ]]; then
				add_hmat "$d" "$d" 100 200000
				add_hmat "$d" "$(hbm_of "$d")" 120 800000
				qemu+=(-numa "dist,src=$d,dst=$(hbm_of "$d"),val=13")
			else
				add_hmat "$d" "$e" 120 160000
				add_hmat "$d" "$(hbm_of "$e")" 140 640000
				qemu+=(-numa "dist,src=$d,dst=$(hbm_of "$e"),val=14")
			fi
			if [[ $d -lt $e ]]; then
				qemu+=(-numa "dist,src=$d,dst=$e,val=12"
					-numa "dist,src=$(hbm_of "$d"),dst=$(hbm_of "$e"),val=14")
			fi
		done
	done
}

# Sets qemu to the whole command line.
machine_arguments()
{
	local kernel_args machine=q35 cpu=max

	# Emulated CPUs share the host's with whatever else runs there: a late timer or a wait of seconds is no fault.
	kernel_args="console=ttyS0 nokaslr no_timer_check panic=-1 oops=panic sysrq_always_enabled"
	kernel_args+=" rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60"
	# What two chunks share is accessed once in thousands of accesses: with one in 200 watched, KCSAN's settings, a race
	# of it was not found in minutes; with one in 20 it is.
	[ "$kernel" != kcsan ] || kernel_args+=" kcsan.early_enable=1 kcsan.skip_watch=20"
	kernel_args+=$append
	[[ $topology = one ]] || machine+=,hmat=on
	# A socket each, for the kernel warns of one last level cache on two nodes.
	qemu=(qemu-system-x86_64 -machine "$machine" -m "$(((ddr_node + hbm_node) * clusters >> 20))M"
		-smp "$cpus,sockets=$clusters,cores=$((cpus / clusters)),threads=1")
	if [[ ${FERRY_GUEST_ACCEL:-tcg} = kvm ]]; then
		qemu+=(-accel kvm)
		cpu=host
	elif [[ $icount = 1 ]]; then
		qemu+=(-accel tcg,thread=single -icount shift=0,sleep=off)
	else
		qemu+=(-accel tcg,thread=multi)
	fi
	# Such instructions are emulated byte by byte.
	[ "$cpu" = host ] || cpu+=,-erms,-fsrm
	qemu+=(-cpu "$cpu")
	[[ $topology = one ]] || add_nodes
	qemu+=(-nodefaults -no-user-config -no-reboot -display none
		-kernel "$vmlinuz" -initrd "$initramfs" -append "$kernel_args"
		-chardev "file,id=console,path=${work//,/,,}/console" -serial chardev:console
		-chardev "pipe,id=monitor,path=${work//,/,,}/mon" -mon chardev=monitor,mode=readline
		-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap
		-virtfs "local,path=${work//,/,,},mount_tag=runner,security_model=none,multidevs=remap")
}
