// Button of the terminal recording: shows the last frame, or plays again.

const LENGTH = 11000; // milliseconds

function control(place) {
  const image = place.querySelector("img"), still = place.querySelector("source"), button = document.createElement("button");
  const moving = image.src, end = still.srcset;
  let timer, plays = 0;
  function stop() {
    clearTimeout(timer);
    timer = undefined;
    image.src = end;
    button.textContent = "Play again";
  }
  function play() {
    if (plays) image.src = `${moving}?${plays}`; // another address starts the animation anew
    plays += 1;
    timer = setTimeout(stop, LENGTH);
    button.textContent = "Skip to the end";
  }
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return; // the last frame is shown, and stays
  button.type = "button";
  button.addEventListener("click", () => (timer ? stop() : play()));
  place.append(button);
  play();
}

document.querySelectorAll(".home-recording").forEach(control);
