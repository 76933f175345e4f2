// A small navigator.xr: one session, two controllers or none, a viewer; the test moves them and presses their buttons.
(() => {
  const thing = () => {
    const transform = { position: { x: 0, y: 0, z: 0 }, orientation: { x: 0, y: 0, z: 0, w: 1 } };
    return { pose: { transform, emulatedPosition: false }, move(x, y, z) { transform.position = { x, y, z }; } };
  };
  const controller = (handedness) => {
    const buttons = Array.from({ length: 6 }, () => ({ value: 0, pressed: false, touched: false }));
    const gamepad = { buttons, axes: [0, 0, 0, 0], hapticActuators: [{ pulse: () => Promise.resolve(true) }] };
    const body = thing();
    return Object.assign(body, {
      handedness, gamepad, gripSpace: body, targetRayMode: "tracked-pointer",
      press(index, value) { buttons[index] = { value, pressed: value > 0.5, touched: true }; },
    });
  };
  const fake = { right: controller("right"), left: controller("left"), viewer: thing(), running: false };
  fake.sources = [fake.right, fake.left];
  const frame = { getPose: (space) => space.pose, getViewerPose: () => fake.viewer.pose };
  class Session extends EventTarget {
    visibilityState = "visible";
    environmentBlendMode = "opaque";
    renderState = {};
    get inputSources() { return fake.sources; }
    updateRenderState() { return Promise.resolve(); }
    requestReferenceSpace() { return Promise.resolve({}); }
    requestAnimationFrame(call) {
      fake.running = true;
      setTimeout(() => call(performance.now(), frame), 14);
    }
    end() {
      fake.running = false;
      this.dispatchEvent(new Event("end"));
      return Promise.resolve();
    }
  }
  const xr = {
    isSessionSupported: () => Promise.resolve(true),
    requestSession: () => Promise.resolve((fake.session = new Session())),
  };
  window.fakeXr = fake;
  window.XRWebGLLayer = class {};
  Object.defineProperty(Navigator.prototype, "xr", { configurable: true, get: () => xr });
})();
