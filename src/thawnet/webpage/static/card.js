// The card of one image: the picture, what is going on with it, the answer.
"use strict";

((thawnet) => {
  const template = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

  // A name in a line of text: a Hebrew or Arabic one swaps no places with what is beside it.
  thawnet.bdi = (name) => {
    const element = document.createElement("bdi");
    element.textContent = name;
    return element;
  };

  thawnet.wholePercent = (share) => `${(100 * share).toFixed(0)}\u00a0%`;

  function percent(share) {
    if (share >= 0.9995) return ">99.9\u00a0%";
    if (share < 0.001) return "<0.1\u00a0%";
    return `${(100 * share).toFixed(1)}\u00a0%`;
  }

  class Card {
    // `actions`: remove, repeat and teach, called with the card when a person asks for that; teach
    // gets a class too.
    constructor(file, actions) {
      this.file = file;
      this.element = template("card");
      this.answer = null; // as the predictor gave it, without the explanation
      this.removed = false;
      this.size = undefined; // of the picture, in px; null where it cannot be drawn
      this.element.setAttribute("aria-label", file.name);
      this.find(".file").textContent = this.find(".file").title = file.name;
      this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
      this.find(".remove").addEventListener("click", () => actions.remove(this));
      this.find(".repeat").addEventListener("click", () => actions.repeat(this));
      this.find(".teach").addEventListener("submit", (event) => {
        event.preventDefault();
        actions.teach(this, this.find("select").value);
      });
      this.wait("Waiting");
    }

    find(selector) {
      return this.element.querySelector(selector);
    }

    async draw(side) {
      if (this.size !== undefined) return;
      const canvas = this.find(".image");
      this.size = await thawnet.picture.draw(canvas, this.file, side);
      canvas.hidden = !this.size;
      if (this.size) {
        this.find(".picture").style.setProperty("--ratio", canvas.width / canvas.height);
      }
      canvas.setAttribute("aria-label", this.file.name);
      const kind = /\.(\w{1,5})$/.exec(this.file.name)?.[1].toUpperCase();
      this.find(".placeholder").hidden = Boolean(this.size);
      this.find(".placeholder").textContent = kind ? `${kind}: no preview` : "no preview";
    }

    wait(sentence) {
      this.element.dataset.state = "waiting";
      this.find(".repeat").hidden = true;
      this.find(".picture").hidden = false;
      this.find(".status").textContent = sentence;
      this.find(".status").hidden = false;
    }

    // Show the answer. `again`: whether asking once more may help.
    finish({ explanation, image, ...answer }, milliseconds, again) {
      this.answer = { image: this.file.name, ...answer };
      this.explanation = this.size ? explanation : undefined;
      this.element.dataset.state = answer.error ? "failed" : "done";
      this.element.dataset.unfamiliar = answer.unfamiliar === true;
      this.find(".status").textContent = answer.error ?? "";
      this.find(".status").hidden = !answer.error;
      this.find(".repeat").hidden = !again;
      this.find(".picture").hidden = Boolean(answer.error) && !this.size; // an empty frame says nothing
      const facts = [];
      if (this.size) facts.push(`${this.size.width} × ${this.size.height} px`);
      if (milliseconds !== undefined && !answer.error) facts.push(`${Math.max(1, Math.round(milliseconds))} ms`);
      this.find(".facts").textContent = facts.join(" · ");
      if (answer.error) return;
      this.find(".flag").hidden = answer.unfamiliar !== true;
      this.find(".bars").hidden = false;
      this.find(".bars").replaceChildren(...answer.predictions.map((each, i) => this.bar(each, i)));
    }

    // Ask which class is right: the network's choice is chosen, "unsure" stands for none.
    ask(classes) {
      if (this.answer.error) return;
      const best = this.answer.predictions[0].class;
      const options = classes.map((name) => new Option(name, name, false, name === best));
      this.find("select").replaceChildren(...options, new Option("None of these", "unsure"));
      this.find(".teach").hidden = false;
    }

    // Say what became of the photo whose class a person named.
    told(sentence, kept) {
      this.find(".teach .fine").textContent = sentence;
      this.find(".teach button").textContent = kept ? "Change" : "Keep photo";
    }

    bar({ class: name, probability }, place) {
      const item = template("bar");
      item.classList.toggle("best", place === 0);
      item.querySelector(".name").textContent = name;
      item.querySelector(".share").textContent = percent(probability);
      item.querySelector(".fill").style.width = `${100 * probability}%`;
      const button = item.querySelector("button");
      if (this.explanation) {
        button.title = `Where \u2068${name}\u2069 was seen`;
        button.addEventListener("click", () => {
          this.showMap(button.getAttribute("aria-pressed") === "true" ? null : place);
        });
      } else {
        const plain = document.createElement("div"); // there is nothing to press for
        plain.className = "bar";
        plain.append(...button.childNodes);
        button.replaceWith(plain);
      }
      return item;
    }

    // Lay the map of a class, by its place among the answers, over the picture; null: none.
    showMap(place) {
      if (!this.explanation) return;
      const { maps, box } = this.explanation;
      const overlay = this.find(".overlay");
      overlay.hidden = place === null;
      if (place !== null) thawnet.picture.overlay(overlay, this.find(".image"), maps[place], box);
      this.element.querySelectorAll("button.bar").forEach((button, i) => {
        button.setAttribute("aria-pressed", i === place);
      });
    }

    // The answer as it is read out.
    get words() {
      const { image, error, predictions, unfamiliar } = this.answer;
      if (error) return `${image}: ${error}`;
      const [best] = predictions;
      const words = `${image}: ${best.class}, ${percent(best.probability)}`;
      return unfamiliar ? `${words}. Unlike the training data: do not trust this.` : words;
    }
  }

  thawnet.Card = Card;
})((window.thawnet ??= {}));
