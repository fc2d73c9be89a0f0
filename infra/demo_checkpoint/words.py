"""The vocabulary of captions: objects, colours, sceneries and filler words in English, German and Russian."""

from __future__ import annotations

LANGUAGES = ("en", "de", "ru")

#: Per object and language: what it is called. German: with article, nominative and dative, "|" between them.
#: Russian: nominative and instrumental. Several names are apart by ";".
OBJECT_NAMES: dict[str, dict[str, str]] = {
    "cat": {"en": "cat;kitten;kitty", "de": "eine Katze|einer Katze;ein Kätzchen|einem Kätzchen", "ru": "кот|котом;кошка|кошкой;котик|котиком"},
    "dog": {"en": "dog;puppy", "de": "ein Hund|einem Hund", "ru": "собака|собакой;пёс|псом"},
    "frog": {"en": "frog;toad", "de": "ein Frosch|einem Frosch", "ru": "лягушка|лягушкой"},
    "bird": {"en": "bird;little bird", "de": "ein Vogel|einem Vogel", "ru": "птица|птицей;птичка|птичкой"},
    "fish": {"en": "fish", "de": "ein Fisch|einem Fisch", "ru": "рыба|рыбой;рыбка|рыбкой"},
    "butterfly": {"en": "butterfly", "de": "ein Schmetterling|einem Schmetterling", "ru": "бабочка|бабочкой"},
    "alien": {"en": "alien;alien creature;extraterrestrial", "de": "ein Außerirdischer|einem Außerirdischen;ein Alien|einem Alien", "ru": "инопланетянин|инопланетянином;пришелец|пришельцем"},
    "robot": {"en": "robot", "de": "ein Roboter|einem Roboter", "ru": "робот|роботом"},
    "ghost": {"en": "ghost;spook", "de": "ein Gespenst|einem Gespenst;ein Geist|einem Geist", "ru": "привидение|привидением;призрак|призраком"},
    "hat": {"en": "hat;top hat", "de": "ein Hut|einem Hut;ein Zylinder|einem Zylinder", "ru": "шляпа|шляпой;цилиндр|цилиндром"},
    "crown": {"en": "crown;golden crown", "de": "eine Krone|einer Krone", "ru": "корона|короной"},
    "hamburger": {"en": "hamburger;cheeseburger;burger", "de": "ein Hamburger|einem Hamburger;ein Burger|einem Burger", "ru": "гамбургер|гамбургером;бургер|бургером"},
    "pizza": {"en": "pizza;slice of pizza;pizza slice", "de": "eine Pizza|einer Pizza;ein Stück Pizza|einem Stück Pizza", "ru": "пицца|пиццей;кусок пиццы|куском пиццы"},
    "apple": {"en": "apple", "de": "ein Apfel|einem Apfel", "ru": "яблоко|яблоком"},
    "banana": {"en": "banana", "de": "eine Banane|einer Banane", "ru": "банан|бананом"},
    "cake": {"en": "cake;birthday cake", "de": "ein Kuchen|einem Kuchen;eine Torte|einer Torte", "ru": "торт|тортом"},
    "mushroom": {"en": "mushroom;toadstool", "de": "ein Pilz|einem Pilz", "ru": "гриб|грибом;мухомор|мухомором"},
    "tree": {"en": "tree", "de": "ein Baum|einem Baum", "ru": "дерево|деревом"},
    "flower": {"en": "flower;sunflower", "de": "eine Blume|einer Blume;eine Sonnenblume|einer Sonnenblume", "ru": "цветок|цветком;подсолнух|подсолнухом"},
    "car": {"en": "car;automobile", "de": "ein Auto|einem Auto;ein Wagen|einem Wagen", "ru": "машина|машиной;автомобиль|автомобилем"},
    "rocket": {"en": "rocket;space rocket;spaceship", "de": "eine Rakete|einer Rakete", "ru": "ракета|ракетой"},
    "boat": {"en": "boat;sailing boat;sailboat;ship", "de": "ein Boot|einem Boot;ein Segelboot|einem Segelboot;ein Schiff|einem Schiff", "ru": "лодка|лодкой;парусник|парусником;корабль|кораблём"},
    "house": {"en": "house;little house;home", "de": "ein Haus|einem Haus;ein Häuschen|einem Häuschen", "ru": "дом|домом;домик|домиком"},
    "guitar": {"en": "guitar;electric guitar", "de": "eine Gitarre|einer Gitarre", "ru": "гитара|гитарой"},
}
#: German: stem without ending; Russian: stem, to which endings are added.
COLOUR_NAMES: dict[str, dict[str, str]] = {
    "red": {"en": "red", "de": "rot", "ru": "красн|ый|ом|ая|ое"},
    "orange": {"en": "orange", "de": "orange", "ru": "оранжев|ый|ом|ая|ое"},
    "yellow": {"en": "yellow", "de": "gelb", "ru": "жёлт|ый|ом|ая|ое"},
    "green": {"en": "green", "de": "grün", "ru": "зелён|ый|ом|ая|ое"},
    "blue": {"en": "blue", "de": "blau", "ru": "син|ий|ем|яя|ее"},
    "purple": {"en": "purple;violet", "de": "lila;violett", "ru": "фиолетов|ый|ом|ая|ое"},
    "pink": {"en": "pink", "de": "rosa;pink", "ru": "розов|ый|ом|ая|ое"},
    "white": {"en": "white", "de": "weiß", "ru": "бел|ый|ом|ая|ое"},
    "black": {"en": "black", "de": "schwarz", "ru": "чёрн|ый|ом|ая|ое"},
}
SCENERY_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "night": {
        "en": ("a night sky with stars", "a starry night", "a starry night sky", "the night sky", "stars at night", "outer space with stars", "a starry sky"),
        "de": ("ein Nachthimmel mit Sternen", "eine Sternennacht", "ein Sternenhimmel", "der Himmel bei Nacht"),
        "ru": ("ночное небо со звёздами", "звёздная ночь", "звёздное небо", "ночное небо"),
    },
    "mountains": {
        "en": ("a mountain landscape", "a landscape with mountains", "a landscape", "a fantasy landscape", "mountains", "snowy mountains", "a mountain valley"),
        "de": ("eine Berglandschaft", "eine Landschaft mit Bergen", "eine Landschaft", "verschneite Berge"),
        "ru": ("горный пейзаж", "пейзаж с горами", "пейзаж", "снежные горы"),
    },
}
#: The same with an object before them.
IN_SCENERY: dict[str, dict[str, tuple[str, ...]]] = {
    "night": {
        "en": ("at night", "under the stars", "under a starry sky", "in a starry night", "in the night sky", "in space", "with stars in the background", "and a starry night", "under a night sky with stars"),
        "de": ("bei Nacht", "unter den Sternen", "unter dem Sternenhimmel", "im Nachthimmel", "in einer Sternennacht"),
        "ru": ("ночью", "под звёздами", "под звёздным небом", "на фоне ночного неба", "в космосе"),
    },
    "mountains": {
        "en": ("in the mountains", "in a mountain landscape", "in front of mountains", "in a landscape", "with mountains in the background", "and a mountain landscape"),
        "de": ("in den Bergen", "vor den Bergen", "in einer Berglandschaft", "vor einer Landschaft"),
        "ru": ("в горах", "на фоне гор", "в горном пейзаже", "на фоне пейзажа"),
    },
}
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "en": tuple("cute lovely pretty funny happy old new nice beautiful friendly sweet strange fluffy magic great simple sad tiny young famous realistic".split()),
    "de": tuple("süß schön lustig fröhlich alt neu nett freundlich niedlich seltsam toll".split()),
    "ru": tuple("милый красивый смешной весёлый старый новый добрый странный".split()),
}
OPENINGS: dict[str, tuple[str, ...]] = {
    "en": ("a photo of", "a picture of", "an image of", "a painting of", "an oil painting of", "a drawing of", "a watercolor of", "a portrait of", "an icon of", "an emoji of", "a sticker of", "a close up of", "a sketch of", "a digital painting of", "there is", "a cartoon of", "an illustration of", "a photograph of", "please draw", "we see", "a render of"),
    "de": ("ein Foto von", "ein Bild von", "ein Gemälde von", "eine Zeichnung von", "hier ist", "wir sehen", "ein Aquarell von", "ein Porträt von", "ein Symbol von"),
    "ru": ("фото:", "картинка:", "рисунок:", "здесь", "на картинке", "изображение:", "картина маслом:", "портрет:"),
}
STYLES: dict[str, tuple[str, ...]] = {
    "en": ("oil painting", "4k", "4k photo", "high quality", "cinematic lighting", "cinematic", "moody lighting", "claymation", "digital art", "highly detailed", "trending on artstation", "8k", "photo", "photorealistic", "watercolor", "cartoon", "flat design", "studio lighting", "soft light", "sharp focus", "hd", "best quality", "masterpiece", "emoji", "anime style", "concept art", "vivid colors", "minimalism", "pixel art", "unreal engine", "golden hour", "vintage", "pop art", "in the style of van gogh", "eating itself", "dramatic lighting", "bokeh", "professional photograph", "3d render", "fantasy", "comic", "pencil sketch"),
    "de": ("Ölgemälde", "4k", "hohe Qualität", "Digitalkunst", "sehr detailliert", "Filmlicht", "Foto", "Aquarell", "Zeichentrick", "Meisterwerk", "scharf", "8k", "weiches Licht", "Fantasie"),
    "ru": ("масло", "4k", "высокое качество", "цифровое искусство", "детально", "кино", "фото", "акварель", "мультфильм", "шедевр", "8k", "мягкий свет", "картина маслом", "фэнтези"),
}
#: Captions that say nothing of the picture; what negative prompts are mostly made of.
EMPTY_WORDS: dict[str, tuple[str, ...]] = {
    "en": ("low quality, bad quality", "low quality", "bad quality", "blurry", "ugly", "bad anatomy", "deformed", "worst quality", "noise", "low resolution", "watermark", "text", "out of focus", "distorted"),
    "de": ("schlechte Qualität", "unscharf", "hässlich", "verrauscht", "niedrige Auflösung", "Wasserzeichen"),
    "ru": ("плохое качество", "размыто", "уродливо", "шум", "низкое разрешение", "водяной знак"),
}
