#!/usr/bin/env bash
# The virtual camera for real, without touching this computer's kernel: in a QEMU guest (Debian's kernel, v4l2loopback) the avatar's
# pictures go through VirtualCameraSink into a camera that Chromium opens with getUserMedia. By hand, as root:
#
#   scripts/measure/virtual_camera_vm.sh [SECONDS_AT_MOST]     (default 600; about a minute on an idle computer)
#
# Needs Debian and its packages (the script names those that are missing), and .venv with pyvirtualcam and playwright. The guest's root
# is this computer's, read-only; what it writes is gone with it. Nothing is drawn in it: its processor is an emulated one.
set -euo pipefail
ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)"
WORK="${XDG_CACHE_HOME:-$HOME/.cache}/visavis/virtual-camera-vm"
PYTHON="$ROOT/.venv/bin/python"

guest() { # runs inside, as the first process
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp/home PYTHONPATH="$ROOT"
    mkdir -p "$HOME"
    cd -- "$ROOT"
    ip link set lo up
    modprobe videodev
    insmod "$WORK/src/v4l2loopback.ko" devices=1 video_nr=10 card_label=visavis exclusive_caps=1
    modprobe vivid n_devs=1 vid_cap_nr=20 || echo "no vivid: its part is left out"
    "$PYTHON" -u -m scripts.measure.virtual_camera_guest read-vivid 20 || true
    "$PYTHON" -u -m scripts.measure.virtual_camera_guest send "$WORK/frames.npy" &
    "$PYTHON" -u -m scripts.measure.virtual_camera_guest look "$WORK/frames.npy"
}
if [[ "${1:-}" == guest ]]; then guest; exit; fi

missing=()
while read -r command package; do
    command -v "$command" >/dev/null || missing+=("$package")
done <<'TABLE'
qemu-system-x86_64 qemu-system-x86
modprobe kmod
cpio cpio
busybox busybox-static
chromium chromium
make make
gcc gcc
TABLE
KERNEL="$(find /lib/modules -mindepth 1 -maxdepth 1 -name '*-amd64' -printf '%f\n' 2>/dev/null | sort -V | tail -1)"
[[ -n "$KERNEL" && -r "/boot/vmlinuz-$KERNEL" ]] || missing+=(linux-image-amd64)
[[ -n "$KERNEL" && -e "/lib/modules/$KERNEL/build" ]] || missing+=(linux-headers-amd64)
if ((${#missing[@]})); then
    echo "missing; type: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

mkdir -p "$WORK"
cd -- "$WORK"
if [[ ! -e "src/v4l2loopback.ko" || "$(cat kernel 2>/dev/null)" != "$KERNEL" ]]; then
    echo "==> building v4l2loopback for $KERNEL"
    rm -rf deb src
    apt-get download -qq v4l2loopback-dkms
    dpkg -x v4l2loopback-dkms_*.deb deb
    cp -r deb/usr/src/v4l2loopback-* src
    make -s -C "/lib/modules/$KERNEL/build" "M=$WORK/src" modules
    echo "$KERNEL" >kernel
fi

echo "==> the guest's first steps"
rm -rf first
mkdir -p first/{bin,mods,proc,sys,dev,newroot,ro,rw}
cp "$(command -v busybox)" first/bin/busybox
: >first/mods/order
for module in virtio_pci 9pnet_virtio 9p overlay; do
    while read -r file; do
        name="$(basename "$file")"
        [[ -e "first/mods/$name" ]] && continue
        cp "$file" first/mods/
        echo "$name" >>first/mods/order
    done < <(modprobe -S "$KERNEL" --show-depends "$module" | awk '/^insmod/ { print $2 }')
done
cat >first/init <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin; /bin/busybox --install -s
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in \$(cat /mods/order); do insmod /mods/\$m || echo "no \$m"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,ro,cache=loose host /ro || { echo "no root"; poweroff -f; }
mount -t tmpfs tmpfs /rw; mkdir /rw/u /rw/w
mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w overlay /newroot || { echo "no overlay"; poweroff -f; }
mount --move /proc /newroot/proc; mount --move /sys /newroot/sys; mount --move /dev /newroot/dev
mkdir -p /newroot/dev/shm; mount -t tmpfs shm /newroot/dev/shm
HOME=/root XDG_CACHE_HOME="$(dirname -- "$(dirname -- "$WORK")")" chroot /newroot /bin/bash "$ROOT/scripts/measure/virtual_camera_vm.sh" guest
echo "guest: exit status \$?"
poweroff -f
INIT
chmod +x first/init
(cd first && find . | cpio -o -H newc --quiet | gzip -1) >first.img

echo "==> the pictures"
(cd -- "$ROOT" && PYTHONPATH="$ROOT" "$PYTHON" -m scripts.measure.virtual_camera_guest draw "$WORK/frames.npy")

echo "==> the guest"
timeout "${1:-600}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -kernel "/boot/vmlinuz-$KERNEL" \
    -initrd first.img -append "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off no_timer_check" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -nographic -no-reboot -net none </dev/null
